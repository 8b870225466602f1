"""What can go wrong in training, as one tree; catch at the level you can act on.

TrainingError
├── DataError                 a data set cannot be had or cannot be used
│   ├── UnknownDataSet        no data set has that name
│   ├── RootNotWritable       the folder for data sets cannot be written
│   ├── BrokenDataSet         a prepared folder is incomplete or was changed
│   ├── MalformedSource       a source's archive is not in its documented form
│   ├── ConversionRefused     files cannot be converted: which are missing, or where the output is in the way
│   ├── SourceAbsent          the files that the user brings are not in the data folder
│   ├── DownloadFailed        one source could not be fetched
│   │   └── DigestMismatch    it was fetched, and it is not what it should be
│   └── OfflineError          every source failed; names each, and why
├── SettingError              a setting is unknown, of the wrong type or out of range
│   ├── UnknownModel          no model has that name
│   └── UnknownYardstick      no yardstick has that name, or its package is missing
├── Diverged                  weights are no longer finite numbers
├── ExamplesError             a table of examples cannot be trained on; names file, column and row
└── RunError                  a run's folder is in the way, incomplete or altered
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path


class TrainingError(Exception):
    """Base of every error that the training package raises on purpose."""


class DataError(TrainingError):
    """A data set cannot be had or cannot be used."""


class UnknownDataSet(DataError):
    """No data set has the name asked for."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"no data set is called {name!r}; known: {', '.join(known)}")
        self.name = name
        self.known = tuple(known)


class RootNotWritable(DataError):
    """The folder that holds data sets cannot be written."""

    def __init__(self, root: Path, cause: OSError) -> None:
        super().__init__(
            f"cannot write to the folder for data sets {root} ({cause.strerror or cause}); "
            "set RANKD_DATA to a folder that you own and that has room"
        )
        self.root = root


class BrokenDataSet(DataError):
    """A prepared folder is incomplete, was changed, or was made by another version."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"{folder} does not hold a usable data set: {reason}; prepare it again")
        self.folder = folder
        self.reason = reason


class MalformedSource(DataError):
    """A source's archive is not in the form its publisher documents."""

    def __init__(self, archive: str, problem: str) -> None:
        super().__init__(f"{archive}: {problem}")
        self.archive = archive
        self.problem = problem


class ConversionRefused(DataError):
    """Files cannot be converted as asked; the message says why and what to do."""


class SourceAbsent(DataError):
    """A data set that is not downloaded is not in the data folder either; says where from and where to."""

    def __init__(self, name: str, folder: Path, files: str, obtain: str) -> None:
        super().__init__(
            f"{name} is not downloaded; its files are brought by you and were not found.\n"
            f"Where to get them: {obtain}\n"
            f"Where to put them: {files} into {folder} (or set RANKD_DATA to the folder above it), "
            f"then run `rankd data get {name}` again"
        )
        self.name = name
        self.folder = folder


class DownloadFailed(DataError):
    """One source could not be fetched; the message says which, and why."""


class DigestMismatch(DownloadFailed):
    """A file arrived whole and is not the one that was asked for; it has been removed."""

    def __init__(self, what: str, expected: str, actual: str) -> None:
        super().__init__(
            f"{what} has sha256 {actual}, expected {expected}: the file was removed; "
            "a mirror or a proxy may have changed it, try again or use another source"
        )
        self.expected = expected
        self.actual = actual


class OfflineError(DataError):
    """Every source of a data set failed."""

    def __init__(self, name: str, failures: Sequence[tuple[str, DataError]], root: Path) -> None:
        tried = "".join(f"\n  - {title}: {error}" for title, error in failures)
        super().__init__(
            f"none of the sources of {name} could be used:{tried}\n"
            f"What to do: set RANKD_DATA to a folder that holds {name}/ (now {root}), "
            "connect to a network and try again, or use movielens-synthetic, which needs no network"
        )
        self.name = name
        self.failures = tuple(failures)


class SettingError(TrainingError):
    """A setting is unknown, of the wrong type or out of range."""


class UnknownModel(SettingError):
    """No model has the name asked for."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        near = difflib.get_close_matches(name, known, 1, 0.5)
        hint = f"did you mean '{near[0]}'? " if near else ""
        super().__init__(f"no model is called {name!r}; {hint}known: {', '.join(known)}")
        self.name = name
        self.known = tuple(known)


class UnknownYardstick(SettingError):
    """No yardstick has the name asked for, or the package that it needs is not installed."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(
            f"no yardstick is called {name!r}; known here: {', '.join(known)} "
            "(lightgbm needs `pip install 'rankd[yardsticks]'`)"
        )
        self.name = name
        self.known = tuple(known)


class Diverged(TrainingError):
    """Weights are no longer finite numbers."""

    def __init__(self, epoch: int, learning_rate: float) -> None:
        super().__init__(
            f"after epoch {epoch} some weights are no longer finite numbers; lower learning_rate (now "
            f"{learning_rate:g}), or transform fields whose numbers are large"
        )
        self.epoch = epoch


class ExamplesError(TrainingError):
    """A table of examples cannot be trained on.

    Attributes:
        path: the file.
        column: the column at fault, if one is.
        row: index of the first row at fault, if one is.
    """

    def __init__(
        self, path: Path, problem: str, *, column: str | None = None, row: int | None = None
    ) -> None:
        place = "".join((f", column '{column}'" if column else "", f", row {row}" if row is not None else ""))
        super().__init__(f"{path}{place}: {problem}")
        self.path = path
        self.column = column
        self.row = row


class RunError(TrainingError):
    """A run's folder is in the way, incomplete or altered."""

    def __init__(self, folder: Path, problem: str) -> None:
        super().__init__(f"{folder}: {problem}")
        self.folder = folder
