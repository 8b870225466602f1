"""One bundle: a folder with a closed list of plain files, every one of them the one its manifest names.

Where bundles lie, and how one is published, is `repository.py`'s.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from rankd_contract.errors import CorruptBundle, SchemaError
from rankd_contract.manifest import (
    CUDA_GRAPH,
    GOLDEN,
    GRAPH,
    ITEM_PART,
    MANIFEST,
    REST,
    SCHEMA,
    BundleManifest,
    FileEntry,
)
from rankd_contract.schema import FeatureSchema
from rankd_contract.schema_file import parse_schema
from rankd_contract.seal import SEAL, SEAL_MOST_BYTES, Seal

__all__ = ["Bundle", "entry_of", "manifest_text", "open_bundle", "read_seal", "verified"]

_MAX_FILE_BYTES = 64 << 30
_MAX_MANIFEST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle: every file is the one the manifest names."""

    path: Path
    manifest: BundleManifest
    schema: FeatureSchema
    digest: str

    @property
    def graph(self) -> Path:
        """The ONNX graph."""
        return self.path / GRAPH

    @property
    def in_two(self) -> tuple[Path, Path] | None:
        """The graph in two, where the bundle has it so: the item's part, and the rest."""
        if ITEM_PART not in self.manifest.files or REST not in self.manifest.files:
            return None
        return self.path / ITEM_PART, self.path / REST

    @property
    def cuda_graph(self) -> Path:
        """The graph for CUDA, where the manifest says that there is one."""
        return self.path / CUDA_GRAPH

    @property
    def golden(self) -> Path:
        """Recorded requests and their scores."""
        return self.path / GOLDEN


def read_seal(bundle: Bundle) -> Seal | None:
    """Return who signed a bundle, unchecked; None where nobody did. Raises CorruptBundle."""
    path = bundle.path / SEAL
    try:
        found = path.lstat()
        if not _is_plain(found) or found.st_size > SEAL_MOST_BYTES:
            raise CorruptBundle(f"{path}: must be a plain file of its own, at most {SEAL_MOST_BYTES} bytes")
        return Seal.from_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CorruptBundle(f"{path}: cannot be read: {error.strerror}") from error


def open_bundle(path: Path) -> Bundle:
    """Read and verify a bundle. Raises CorruptBundle naming the file and what is wrong with it."""
    return verified(path, manifest_text(path))


def manifest_text(path: Path) -> bytes:
    """Return the bytes of a bundle's manifest, unchecked. Raises CorruptBundle."""
    try:
        found = (path / MANIFEST).lstat()
        if not _is_plain(found) or found.st_size > _MAX_MANIFEST_BYTES:
            raise CorruptBundle(
                f"{path}: no readable {MANIFEST} (it must be a plain file of its own, at most 16 MiB)"
            )
        return (path / MANIFEST).read_bytes()
    except OSError as error:
        reason = f"no readable {MANIFEST} ({error.strerror}); is this a bundle?"
        raise CorruptBundle(f"{path}: {reason}") from error


def verified(path: Path, text: bytes) -> Bundle:
    """Verify a bundle against a manifest that was read. Raises CorruptBundle."""
    manifest = BundleManifest.from_json(text)
    for required in (GRAPH, SCHEMA, GOLDEN):
        if required not in manifest.files:
            raise CorruptBundle(f"{path}: the manifest lists no {required}")
    if (manifest.cuda is not None) != (CUDA_GRAPH in manifest.files):
        raise CorruptBundle(f"{path}: the manifest says how to run {CUDA_GRAPH} or lists it, not both")
    try:
        present = {p.name for p in path.iterdir()} - {MANIFEST, SEAL}
        if present != set(manifest.files):
            missing = sorted(set(manifest.files) - present) or "none"
            extra = sorted(present - set(manifest.files)) or "none"
            raise CorruptBundle(f"{path}: files missing: {missing}; not in the manifest: {extra}")
        for name, expected in manifest.files.items():
            _verify(path / name, expected)
        schema = parse_schema((path / SCHEMA).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptBundle(f"{path}: cannot be read: {error}") from error
    except SchemaError as error:
        raise CorruptBundle(f"{path / SCHEMA}: {error}") from error
    if f"{schema.fingerprint:016x}" != manifest.schema_fingerprint:
        raise CorruptBundle(
            f"{path / SCHEMA}: fingerprint {schema.fingerprint:016x}, "
            f"the manifest says {manifest.schema_fingerprint}"
        )
    return Bundle(path, manifest, schema, hashlib.sha256(text).hexdigest())


def entry_of(path: Path) -> FileEntry:
    """Return size and digest of a file."""
    with path.open("rb") as file:
        return FileEntry(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _verify(path: Path, expected: FileEntry) -> None:
    found = path.lstat()
    if not _is_plain(found):
        raise CorruptBundle(f"{path}: must be a plain file of its own, not a link")
    if found.st_size != expected.bytes or found.st_size > _MAX_FILE_BYTES:
        raise CorruptBundle(f"{path}: {found.st_size} bytes, the manifest says {expected.bytes}")
    if entry_of(path).sha256 != expected.sha256:
        raise CorruptBundle(
            f"{path}: SHA-256 differs from the manifest; the file was altered after publishing"
        )


def _is_plain(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1
