"""Bundles on disk: `repository/{model}/{version}/` and the pointer `repository/{model}/current.json`.

A bundle is a closed list of plain files. Publishing writes and syncs the files first, renames the folder
into place, and moves the pointer last, so a reader sees the old version or the new one, never half of one;
a publisher killed at any step leaves nothing that a reader would take for a bundle.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rankd_contract.errors import CorruptBundle, SchemaError
from rankd_contract.manifest import GOLDEN, GRAPH, MANIFEST, SCHEMA, BundleManifest, FileEntry
from rankd_contract.schema import FeatureSchema
from rankd_contract.schema_file import parse_schema

__all__ = ["Bundle", "current_version", "model_names", "open_bundle", "open_current", "publish", "versions"]

_POINTER, _LOCK, _INCOMING = "current.json", ".lock", ".incoming"
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MAX_FILE_BYTES = 64 << 30


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
    def golden(self) -> Path:
        """Recorded requests and their scores."""
        return self.path / GOLDEN


def publish(repository: Path, manifest: BundleManifest, files: Mapping[str, bytes | Path]) -> Bundle:
    """Publish files as the next version of `manifest.model` and point to it.

    `manifest.version` and `manifest.files` are filled in here. Publishers of one model take turns.
    """
    if not _MODEL_NAME.fullmatch(manifest.model):
        raise CorruptBundle(
            f"model name {manifest.model!r}: expected letters, digits, '_', '.', '-', "
            "starting with a letter or a digit"
        )
    home = repository / manifest.model
    home.mkdir(parents=True, exist_ok=True)
    with _turn(home):
        incoming = home / _INCOMING
        shutil.rmtree(incoming, ignore_errors=True)  # a dead publisher's: we hold the lock
        incoming.mkdir()
        try:
            for name, content in files.items():
                _write(incoming / name, content)
            version = max(versions(repository, manifest.model), default=0) + 1
            entries = {name: _entry(incoming / name) for name in files}
            text = replace(manifest, version=version, files=entries).to_json()
            _write(incoming / MANIFEST, text)
            _sync(incoming)
            incoming.rename(home / str(version))
        except BaseException:
            shutil.rmtree(incoming, ignore_errors=True)
            raise
        _sync(home)
        _point(home, version, hashlib.sha256(text).hexdigest())
    return open_bundle(home / str(version))


def open_bundle(path: Path) -> Bundle:
    """Read and verify a bundle. Raises CorruptBundle naming the file and what is wrong with it."""
    try:
        text = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise CorruptBundle(
            f"{path}: no readable {MANIFEST} ({error.strerror}); is this a bundle?"
        ) from error
    manifest = BundleManifest.from_json(text)
    present = {p.name for p in path.iterdir()} - {MANIFEST}
    if present != set(manifest.files):
        missing, extra = sorted(set(manifest.files) - present), sorted(present - set(manifest.files))
        raise CorruptBundle(
            f"{path}: files missing: {missing or 'none'}; not in the manifest: {extra or 'none'}"
        )
    for required in (GRAPH, SCHEMA, GOLDEN):
        if required not in manifest.files:
            raise CorruptBundle(f"{path}: the manifest lists no {required}")
    for name, expected in manifest.files.items():
        _verify(path / name, expected)
    try:
        schema = parse_schema((path / SCHEMA).read_text(encoding="utf-8"))
    except SchemaError as error:
        raise CorruptBundle(f"{path / SCHEMA}: {error}") from error
    if f"{schema.fingerprint:016x}" != manifest.schema_fingerprint:
        raise CorruptBundle(
            f"{path / SCHEMA}: fingerprint {schema.fingerprint:016x}, "
            f"the manifest says {manifest.schema_fingerprint}"
        )
    return Bundle(path, manifest, schema, hashlib.sha256(text).hexdigest())


def open_current(repository: Path, model: str) -> Bundle:
    """Open the version the pointer names. Raises CorruptBundle where pointer and bundle do not agree."""
    version, digest = _pointer(repository / model)
    bundle = open_bundle(repository / model / str(version))
    if bundle.digest != digest:
        raise CorruptBundle(f"{bundle.path}: the manifest is not the one that was published; publish again")
    return bundle


def current_version(repository: Path, model: str) -> int:
    """Return the version the pointer names."""
    return _pointer(repository / model)[0]


def model_names(repository: Path) -> list[str]:
    """Return the models with a published version, by name."""
    return sorted(p.parent.name for p in repository.glob(f"*/{_POINTER}"))


def versions(repository: Path, model: str) -> list[int]:
    """Return the versions of a model that are on disk, ascending."""
    home = repository / model
    return (
        sorted(int(p.name) for p in home.iterdir() if p.name.isdecimal() and p.is_dir())
        if home.is_dir()
        else []
    )


def _pointer(home: Path) -> tuple[int, str]:
    path = home / _POINTER
    try:
        tree = json.loads(path.read_bytes())
        return int(tree["version"]), str(tree["manifest_sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptBundle(
            f"{path}: no usable pointer ({error}); publish the model with `rankd export`"
        ) from error


def _point(home: Path, version: int, digest: str) -> None:
    fresh = home / f".{_POINTER}"
    _write(fresh, (json.dumps({"version": version, "manifest_sha256": digest}) + "\n").encode())
    fresh.replace(home / _POINTER)
    _sync(home)


def _write(path: Path, content: bytes | Path) -> None:
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    with path.open("r+b" if isinstance(content, Path) else "wb") as file:
        if isinstance(content, bytes):
            file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        return FileEntry(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _verify(path: Path, expected: FileEntry) -> None:
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise CorruptBundle(f"{path}: must be a plain file of its own, not a link")
    if found.st_size != expected.bytes or found.st_size > _MAX_FILE_BYTES:
        raise CorruptBundle(f"{path}: {found.st_size} bytes, the manifest says {expected.bytes}")
    if _entry(path).sha256 != expected.sha256:
        raise CorruptBundle(
            f"{path}: SHA-256 differs from the manifest; the file was altered after publishing"
        )


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _turn(home: Path) -> Iterator[None]:
    with (home / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
