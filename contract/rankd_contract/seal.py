"""`manifest.sig`: who published a bundle, as an Ed25519 signature of its manifest, and so of every file.

Named apart from `signature.py`, which is about tensors. Here is the file's form alone; signing is export's,
checking is the service's, and only they need a library for it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from rankd_contract.errors import CorruptBundle

__all__ = ["SEAL", "SEAL_MOST_BYTES", "Seal", "key_id", "signed_text"]

SEAL = "manifest.sig"
SEAL_MOST_BYTES = 4096
_ALGORITHM = "ed25519"
# So that a signature of a manifest is never one of anything else that the same key signs.
_PURPOSE = b"rankd-bundle-signature/1\n"
_SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Seal:
    """A signature, and the id of the key it is of."""

    key: str
    signature: bytes

    def to_json(self) -> bytes:
        """Write the file."""
        tree = {**asdict(self), "algorithm": _ALGORITHM, "signature": self.signature.hex()}
        return (json.dumps(tree, indent=2, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, text: bytes) -> Seal:
        """Read the file. Raises CorruptBundle."""
        try:
            tree = json.loads(text)
            if tree["algorithm"] != _ALGORITHM:
                raise ValueError(f"the algorithm is {str(tree['algorithm'])[:40]!r}, expected {_ALGORITHM!r}")
            seal = cls(str(tree["key"])[:64], bytes.fromhex(tree["signature"]))
            if len(seal.signature) != _SIGNATURE_BYTES:
                raise ValueError(
                    f"the signature has {len(seal.signature)} bytes, expected {_SIGNATURE_BYTES}"
                )
            return seal
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CorruptBundle(f"{SEAL}: no signature of a bundle ({error}); sign it again") from error


def signed_text(manifest: bytes) -> bytes:
    """Return what is signed of a manifest's bytes."""
    return _PURPOSE + manifest


def key_id(raw_public_key: bytes) -> str:
    """Return what a public key (32 bytes) is called in files and messages."""
    return hashlib.sha256(raw_public_key).hexdigest()[:16]
