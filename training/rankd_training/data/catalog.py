"""Gets data sets by name: `get` gives a prepared folder, made only when absent or made from something else.

The root is the argument, else RANKD_DATA, else the user's cache. Archives stay in ROOT/.downloads, so that a
new preparation needs no network. Files that the user brings are found under the root too, but nothing is
written beside them: what is prepared from them goes to the user's cache.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rankd_training.data.data_sets import DATA_SETS, DataSet
from rankd_training.data.download import Progress, ignore_progress
from rankd_training.data.local import LocalSource, combined_digest
from rankd_training.data.places import cache_root, default_root
from rankd_training.data.prepared import load_record, publish
from rankd_training.errors import (
    BrokenDataSet,
    DataError,
    OfflineError,
    RootNotWritable,
    SourceAbsent,
    UnknownDataSet,
)

__all__ = ["DATA_SETS", "DataSet", "default_root", "describe", "get", "is_prepared", "names"]

if sys.platform != "win32":
    import fcntl

DOWNLOADS = ".downloads"
PREPARED = "prepared"


def names() -> tuple[str, ...]:
    """The names of all data sets."""
    return tuple(DATA_SETS)


def describe(name: str) -> DataSet:
    """The data set of that name, or UnknownDataSet."""
    try:
        return DATA_SETS[name]
    except KeyError:
        raise UnknownDataSet(name, names()) from None


def is_prepared(name: str, *, root: Path | None = None) -> bool:
    """Say whether `get` would return at once."""
    data_set, root = describe(name), root or default_root()
    if data_set.local is None:
        return _is_current(root / name, data_set)
    try:
        digest = combined_digest(data_set.local.find(name, root))
    except SourceAbsent:
        return False
    return _is_current(cache_root() / PREPARED / name, data_set, digest)


def get(name: str, *, root: Path | None = None, progress: Progress = ignore_progress) -> Path:
    """Return the prepared folder, fetching and preparing it where needed.

    Raises:
        UnknownDataSet: no data set has that name.
        RootNotWritable: it is not there and cannot be put there.
        OfflineError: it is not there and no source can be used; names each, and why.
        SourceAbsent: it is made of files that the user brings, and they are not in the data folder.
        MalformedSource: they are, and they are not in the expected form.
    """
    data_set = describe(name)
    root = root or default_root()
    if data_set.local is not None:
        return _get_local(data_set, data_set.local, root)
    folder = root / name
    if _is_current(folder, data_set):
        return folder
    with _locked(root, name):
        # Another process may have prepared it while this one waited.
        if not _is_current(folder, data_set):
            _prepare(folder, data_set, progress)
    return folder


def _get_local(data_set: DataSet, source: LocalSource, root: Path) -> Path:
    files = source.find(data_set.name, root)
    digest = combined_digest(files)
    folder = cache_root() / PREPARED / data_set.name
    if _is_current(folder, data_set, digest):
        return folder
    title = f"your own {', '.join(file.name for file in files)}"
    with _locked(cache_root() / "data", data_set.name):
        if not _is_current(folder, data_set, digest):
            tables = source.read(files)
            try:
                publish(folder, tables, data_set.provenance(title, digest), time_column=data_set.time_column)
            except OSError as error:
                raise RootNotWritable(folder.parent, error) from error
    return folder


def _prepare(folder: Path, data_set: DataSet, progress: Progress) -> None:
    failures: list[tuple[str, DataError]] = []
    for origin in data_set.origins:
        try:
            tables = origin.tables(folder.parent / DOWNLOADS, progress)
        except DataError as error:
            failures.append((origin.title, error))
            continue
        provenance = data_set.provenance(origin.title, origin.sha256)
        try:
            publish(folder, tables, provenance, time_column=data_set.time_column)
        except OSError as error:
            raise RootNotWritable(folder.parent, error) from error
        return
    raise OfflineError(data_set.name, failures, folder.parent)


def _is_current(folder: Path, data_set: DataSet, *digests: str) -> bool:
    """Whether a folder was prepared from one of these digests, those of the data set's origins by default."""
    try:
        record = load_record(folder)
    except BrokenDataSet:
        return False
    made_from = record.provenance
    return (made_from.name, made_from.preparation) == (
        data_set.name,
        data_set.preparation,
    ) and made_from.source_sha256 in (digests or {origin.sha256 for origin in data_set.origins})


@contextmanager
def _locked(root: Path, name: str) -> Iterator[None]:
    """Let one process at a time prepare a data set; the system drops the lock of a process that dies."""
    try:
        (root / DOWNLOADS).mkdir(parents=True, exist_ok=True)
        lock = (root / DOWNLOADS / f"{name}.lock").open("w")
    except OSError as error:
        raise RootNotWritable(root, error) from error
    with lock:
        # Without such locks two processes may do the work twice; one of them wins the rename.
        if sys.platform != "win32":
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
