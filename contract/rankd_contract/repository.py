"""Where bundles lie: `repository/{model}/{version}/`, with the pointer `repository/{model}/current.json`.

Publishing writes, syncs and verifies the files first, renames the folder into place, and moves the pointer
last, so a reader sees the old version or the new one, never half of one; a publisher killed at any step
leaves nothing that a reader would take for the current bundle.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rankd_contract.bundle import Bundle, entry_of, manifest_text, open_bundle, verified
from rankd_contract.errors import CorruptBundle
from rankd_contract.manifest import MANIFEST, MODEL_NAME, BundleManifest
from rankd_contract.seal import SEAL

__all__ = [
    "Pointer",
    "current_version",
    "model_names",
    "open_current",
    "point_to",
    "publish",
    "put_seal",
    "read_pointer",
    "versions",
]

_POINTER, _LOCK, _INCOMING = "current.json", ".lock", ".incoming"
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_POINTER_BYTES = 4096
_MAX_VERSION = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Pointer:
    """The version of a model that is to be served, and the SHA-256 of its manifest."""

    version: int
    digest: str


def publish(
    repository: Path,
    manifest: BundleManifest,
    files: Mapping[str, bytes | Path],
    seal: Callable[[bytes], bytes] | None = None,
) -> Bundle:
    """Publish files as the next version of `manifest.model` and point to it.

    `manifest.version` and `manifest.files` are filled in here. `seal` makes the signature file of the
    manifest's bytes (`seal.py`). Publishers of one model take turns.
    """
    if not MODEL_NAME.fullmatch(manifest.model):
        raise CorruptBundle(
            f"model name {manifest.model!r}: expected letters, digits, '_', '.', '-', "
            "starting with a letter or a digit"
        )
    for name in files:
        if not _FILE_NAME.fullmatch(name) or name in {MANIFEST, SEAL}:
            raise CorruptBundle(
                f"file name {name!r}: expected a plain name of letters, digits, '_', '.', '-'"
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
            entries = {name: entry_of(incoming / name) for name in files}
            text = replace(manifest, version=version, files=entries).to_json()
            _write(incoming / MANIFEST, text)
            if seal is not None:
                _write(incoming / SEAL, seal(text))
            _sync(incoming)
            bundle = open_bundle(incoming)
            incoming.rename(home / str(version))
        except BaseException:
            shutil.rmtree(incoming, ignore_errors=True)
            raise
        _sync(home)
        _point(home, version, bundle.digest)
    return replace(bundle, path=home / str(version))


def point_to(repository: Path, model: str, version: int) -> Bundle:
    """Point to a version that was published earlier, such as to roll back; it is verified first.

    Raises CorruptBundle, with the pointer left as it is.
    """
    home = repository / model
    if version not in versions(repository, model):
        known = ", ".join(map(str, versions(repository, model))) or "none"
        raise CorruptBundle(f"{home}: there is no version {version}; those on disk: {known}")
    with _turn(home):
        bundle = open_bundle(home / str(version))
        says = bundle.manifest.model, bundle.manifest.version
        if says != (model, version):
            raise CorruptBundle(f"{bundle.path}: its manifest is that of {says[0]} version {says[1]}")
        _point(home, version, bundle.digest)
    return bundle


def put_seal(bundle: Bundle, content: bytes) -> None:
    """Put a signature file into a bundle, in place of one that is there. Raises OSError."""
    home = bundle.path.parent
    with _turn(home):
        fresh = home / f".{SEAL}"
        try:
            _write(fresh, content)
            fresh.replace(bundle.path / SEAL)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        _sync(bundle.path)


def open_current(repository: Path, model: str) -> Bundle:
    """Open the version the pointer names. Raises CorruptBundle where pointer and bundle do not agree."""
    pointer = read_pointer(repository, model)
    path = repository / model / str(pointer.version)
    text = manifest_text(path)
    if hashlib.sha256(text).hexdigest() != pointer.digest:
        raise CorruptBundle(f"{path}: the manifest is not the one that was published; publish again")
    bundle = verified(path, text)
    named = (bundle.manifest.model, bundle.manifest.version)
    if named != (model, pointer.version):
        raise CorruptBundle(
            f"{path}: holds {named[0]} version {named[1]}; a bundle is published, never copied"
        )
    return bundle


def current_version(repository: Path, model: str) -> int:
    """Return the version the pointer names."""
    return read_pointer(repository, model).version


def read_pointer(repository: Path, model: str) -> Pointer:
    """Return what a model's pointer names, unchecked. Raises CorruptBundle where there is no usable one."""
    return _pointer(repository / model)


def model_names(repository: Path) -> list[str]:
    """Return the folders that were published to, by name: whoever opens them hears what is wrong with them.

    A folder counts by a version or by a pointer, or because nobody may look into it; a repository that is not
    there holds none. Raises CorruptBundle where the repository itself cannot be listed.
    """
    try:
        return sorted(home.name for home in repository.iterdir() if _was_published_to(home))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", error)
        raise CorruptBundle(f"{repository}: cannot be listed: {reason}") from error


def _was_published_to(home: Path) -> bool:
    try:
        return any(p.name == _POINTER or p.name.isdecimal() for p in home.iterdir())
    except NotADirectoryError:
        return False
    except OSError:  # such as a folder of another user
        return True


def versions(repository: Path, model: str) -> list[int]:
    """Return the versions of a model that are on disk, ascending."""
    home = repository / model
    return (
        sorted(int(p.name) for p in home.iterdir() if p.name.isdecimal() and p.is_dir())
        if home.is_dir()
        else []
    )


def _pointer(home: Path) -> Pointer:
    path = home / _POINTER
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would keep its reader waiting for ever
            raise ValueError("it must be a plain file")
        with path.open("rb") as file:
            tree = json.loads(file.read(_MAX_POINTER_BYTES))
        version, digest = tree["version"], tree["manifest_sha256"]
        if type(version) is not int or not 0 < version <= _MAX_VERSION:
            raise ValueError(f"version must be a whole number from 1 to {_MAX_VERSION}")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise ValueError("manifest_sha256 must be 64 hexadecimal digits")
        return Pointer(version, digest)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or (f"no {error}" if isinstance(error, KeyError) else error)
        raise CorruptBundle(
            f"{path}: no usable pointer ({reason}); publish the model with `rankd export`"
        ) from error


def _point(home: Path, version: int, digest: str) -> None:
    fresh = home / f".{_POINTER}"
    try:
        _write(fresh, (json.dumps({"version": version, "manifest_sha256": digest}) + "\n").encode())
        fresh.replace(home / _POINTER)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    _sync(home)


def _write(path: Path, content: bytes | Path) -> None:
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    with path.open("r+b" if isinstance(content, Path) else "wb") as file:
        if isinstance(content, bytes):
            file.write(content)
        file.flush()
        os.fsync(file.fileno())


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
