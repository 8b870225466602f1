"""The data sets that have a name: what they are, on what terms, where they come from.

`get` gives a prepared folder, made only when it is absent or was made from something else. The root is the
argument, else RANKD_DATA, else the user's cache. Archives stay in ROOT/.downloads, so that a new preparation
needs no network. A further data set, a local folder included, is a further entry with its own origins.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rankd_training.data.download import Progress, ignore_progress
from rankd_training.data.origins import (
    MOVIELENS_100K_GROUPLENS,
    MOVIELENS_100K_WHEEL,
    MOVIELENS_SYNTHETIC,
    Origin,
)
from rankd_training.data.prepared import Provenance, load_record, publish
from rankd_training.errors import BrokenDataSet, DataError, OfflineError, RootNotWritable, UnknownDataSet

if sys.platform != "win32":
    import fcntl

ROOT_VARIABLE = "RANKD_DATA"
DOWNLOADS = ".downloads"
SCHEMAS = Path(__file__).parent.parent / "schemas"


@dataclass(frozen=True, slots=True)
class DataSet:
    """A named data set. `preparation` goes up whenever the same source gives other tables."""

    name: str
    description: str
    licence: str
    citation: str
    preparation: int
    time_column: tuple[str, str]
    schema_name: str
    origins: tuple[Origin, ...]

    @property
    def schema(self) -> Path:
        """The schema file that describes its columns."""
        return SCHEMAS / self.schema_name

    def provenance(self, origin: Origin) -> Provenance:
        """What a folder prepared from `origin` records."""
        return Provenance(
            self.name, origin.title, origin.sha256, self.licence, self.citation, self.preparation
        )


_MOVIELENS_CITATION = (
    "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. "
    "ACM Transactions on Interactive Intelligent Systems 5, 4, Article 19. https://doi.org/10.1145/2827872"
)
DATA_SETS = {
    data_set.name: data_set
    for data_set in (
        DataSet(
            name="movielens-100k",
            description=(
                "100,000 ratings of 1,682 films by 943 users from 1997 and 1998, with age, gender and "
                "occupation (MovieLens, GroupLens Research)"
            ),
            licence=(
                "Research use with acknowledgement; no redistribution and no commercial use without "
                "permission of GroupLens, University of Minnesota, and no implied endorsement by them."
            ),
            citation=_MOVIELENS_CITATION,
            preparation=1,
            time_column=("examples", "timestamp"),
            schema_name="movielens-100k.yaml",
            origins=(MOVIELENS_100K_WHEEL, MOVIELENS_100K_GROUPLENS),
        ),
        DataSet(
            name="movielens-synthetic",
            description=(
                "100,000 invented ratings of 1,500 invented films by 900 invented users with planted tastes, "
                "in the same form; made on this machine, needs no network"
            ),
            licence="Made by rankd, Apache-2.0.",
            citation="",
            preparation=1,
            time_column=("examples", "timestamp"),
            schema_name="movielens-100k.yaml",
            origins=(MOVIELENS_SYNTHETIC,),
        ),
    )
}


def names() -> tuple[str, ...]:
    """The names of all data sets."""
    return tuple(DATA_SETS)


def describe(name: str) -> DataSet:
    """The data set of that name, or UnknownDataSet."""
    try:
        return DATA_SETS[name]
    except KeyError:
        raise UnknownDataSet(name, names()) from None


def default_root() -> Path:
    """RANKD_DATA, else `rankd/data` in the user's cache."""
    chosen = os.environ.get(ROOT_VARIABLE)  # noqa: TID251 - the one variable that training documents
    if chosen:
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")  # noqa: TID251 - where the desktop standard puts caches
    return (Path(cache) if cache else Path.home() / ".cache") / "rankd" / "data"


def is_prepared(name: str, *, root: Path | None = None) -> bool:
    """Say whether `get` would return at once."""
    folder = (root or default_root()) / name
    return _is_current(folder, describe(name))


def get(name: str, *, root: Path | None = None, progress: Progress = ignore_progress) -> Path:
    """Return the prepared folder ROOT/NAME, fetching and preparing it where needed.

    Raises:
        UnknownDataSet: no data set has that name.
        RootNotWritable: it is not there and cannot be put there.
        OfflineError: it is not there and no source can be used; names each, and why.
    """
    data_set = describe(name)
    root = root or default_root()
    folder = root / name
    if _is_current(folder, data_set):
        return folder
    with _locked(root, name):
        # Another process may have prepared it while this one waited.
        if not _is_current(folder, data_set):
            _prepare(folder, data_set, progress)
    return folder


def _prepare(folder: Path, data_set: DataSet, progress: Progress) -> None:
    failures: list[tuple[str, DataError]] = []
    for origin in data_set.origins:
        try:
            tables = origin.tables(folder.parent / DOWNLOADS, progress)
        except DataError as error:
            failures.append((origin.title, error))
            continue
        try:
            publish(folder, tables, data_set.provenance(origin), time_column=data_set.time_column)
        except OSError as error:
            raise RootNotWritable(folder.parent, error) from error
        return
    raise OfflineError(data_set.name, failures, folder.parent)


def _is_current(folder: Path, data_set: DataSet) -> bool:
    try:
        record = load_record(folder)
    except BrokenDataSet:
        return False
    made_from = record.provenance
    return (made_from.name, made_from.preparation) == (
        data_set.name,
        data_set.preparation,
    ) and made_from.source_sha256 in {origin.sha256 for origin in data_set.origins}


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
