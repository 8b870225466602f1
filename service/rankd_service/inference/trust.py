"""Whether a bundle was signed by somebody who is trusted: `models.trusted_keys`, files of public keys.

Without any nobody is asked for. With some, a bundle that is not signed, or by another key, or whose manifest
is not the one that was signed, is refused before anything of it is looked at but its digests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rankd_contract.bundle import Bundle, read_seal
from rankd_contract.errors import CorruptBundle
from rankd_contract.manifest import MANIFEST
from rankd_contract.seal import key_id, signed_text
from rankd_service.errors import BundleRefused, StartupFailed

__all__ = ["check_seal", "read_keys"]


def read_keys(files: Sequence[Path]) -> Mapping[str, Any]:
    """Read public keys in PEM, by their ids. Raises StartupFailed naming the file."""
    if not files:
        return {}
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415  # an extra of its own
            Ed25519PublicKey,
        )
        from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415
    except ImportError as error:
        raise StartupFailed(
            "models.trusted_keys needs cryptography, which is not installed: pip install 'rankd[signing]'"
        ) from error
    keys: dict[str, Any] = {}
    for file in files:
        try:
            key = load_pem_public_key(file.read_bytes())
        except OSError as error:
            raise StartupFailed(f"models.trusted_keys: {file}: cannot be read: {error.strerror}") from error
        except Exception as error:  # ValueError and the library's own
            raise StartupFailed(
                f"models.trusted_keys: {file}: no public key in PEM; of a private one it is made by "
                f"`openssl pkey -in key.pem -pubout -out {file.name}`"
            ) from error
        if not isinstance(key, Ed25519PublicKey):
            raise StartupFailed(f"models.trusted_keys: {file}: is a key of another kind, expected Ed25519")
        keys[key_id(key.public_bytes_raw())] = key
    return keys


def check_seal(bundle: Bundle, files: Sequence[Path]) -> str:
    """Return the id of the trusted key that signed a bundle; empty without keys. Raises BundleRefused."""
    if not files:
        return ""
    at = f"{bundle.manifest.model} version {bundle.manifest.version}"
    try:
        keys = read_keys(files)
        text = (bundle.path / MANIFEST).read_bytes()
        seal = read_seal(bundle)
    except (StartupFailed, CorruptBundle, OSError) as error:
        raise BundleRefused(f"{at}: {error}") from error
    trusted = ", ".join(sorted(keys))
    if seal is None:
        raise BundleRefused(
            f"{at}: is not signed, and models.trusted_keys wants a signature by {trusted}; "
            "sign it with `rankd bundle sign`"
        )
    if seal.key not in keys:
        raise BundleRefused(
            f"{at}: is signed by the key {seal.key!r}, those of models.trusted_keys are {trusted}"
        )
    try:
        keys[seal.key].verify(seal.signature, signed_text(text))
    except Exception as error:  # InvalidSignature, of a library that may not be installed
        raise BundleRefused(
            f"{at}: its signature is not of this manifest; it was changed after it was signed"
        ) from error
    if hashlib.sha256(text).hexdigest() != bundle.digest:
        raise BundleRefused(f"{at}: its manifest was changed while it was read")
    return seal.key
