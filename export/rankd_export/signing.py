"""Signs bundles with an Ed25519 key from a file: `openssl genpkey -algorithm ed25519 -out key.pem`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rankd_contract.bundle import Bundle
from rankd_contract.errors import CorruptBundle
from rankd_contract.manifest import MANIFEST, BundleManifest
from rankd_contract.repository import put_seal
from rankd_contract.seal import Seal, key_id, signed_text
from rankd_export.errors import KeyUnusable

__all__ = ["sealer", "sign"]


def sealer(key: Path) -> Callable[[bytes], bytes]:
    """Return what makes the signature file of a manifest's bytes. Raises KeyUnusable."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415  # an extra of its own
        Ed25519PrivateKey,
    )
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        private = load_pem_private_key(key.read_bytes(), password=None)
    except OSError as error:
        raise KeyUnusable(f"{key}: cannot be read: {error.strerror}") from error
    except Exception as error:  # ValueError, TypeError for an encrypted one, and the library's own
        raise KeyUnusable(
            f"{key}: no private key in PEM without a password ({type(error).__name__}); make one with "
            "`openssl genpkey -algorithm ed25519 -out key.pem`"
        ) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyUnusable(f"{key}: is a key of another kind, expected Ed25519")
    name = key_id(private.public_key().public_bytes_raw())
    return lambda manifest: Seal(name, private.sign(signed_text(manifest))).to_json()


def sign(bundle: Bundle, key: Path) -> None:
    """Sign a verified bundle where it lies, in place of who did before.

    Raises KeyUnusable, OSError, and CorruptBundle where the manifest is no longer the one that was verified.
    """
    made, manifest = sealer(key), (bundle.path / MANIFEST).read_bytes()
    if BundleManifest.from_json(manifest) != bundle.manifest:
        raise CorruptBundle(f"{bundle.path / MANIFEST}: was changed since the bundle was verified")
    put_seal(bundle, made(manifest))
