"""The prepared folder: Parquet tables and `dataset.json`, which is written last and vouches for the rest.

A folder appears whole or not at all (renamed into place), and `dataset.json` records where the data came
from and the digest of each file. What the tables hold is not this module's business.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from rankd_training.errors import BrokenDataSet

RECORD_FILE = "dataset.json"


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a prepared folder says of its origin; digest and `preparation` decide whether it is current."""

    name: str
    source: str
    source_sha256: str
    licence: str
    citation: str
    preparation: int


@dataclass(frozen=True, slots=True)
class TableFile:
    """One written file."""

    rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Record:
    """The content of `dataset.json`. Times are seconds since 1970, UTC; None where a table knows no time."""

    provenance: Provenance
    first_event_s: int | None
    last_event_s: int | None
    files: Mapping[str, TableFile]

    def to_json(self) -> str:
        """Write as JSON, two spaces deep, keys in a fixed order."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote; ValueError, TypeError or KeyError where it is something else."""
        fields: dict[str, Any] = json.loads(text)
        return cls(
            provenance=Provenance(**fields.pop("provenance")),
            files={name: TableFile(**file) for name, file in fields.pop("files").items()},
            **fields,
        )


def publish(
    folder: Path,
    tables: Mapping[str, pa.Table],
    provenance: Provenance,
    *,
    time_column: tuple[str, str] | None,
) -> Record:
    """Write `tables` as NAME.parquet beside their record, and let `folder` appear whole.

    Args:
        folder: the place to appear at; what is there is replaced.
        tables: by name.
        provenance: recorded as given.
        time_column: table and column whose extremes are the data's first and last event, in seconds, if any.
    """
    staging = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    staging.mkdir(parents=True)
    try:
        files = {f"{name}.parquet": _write(staging / f"{name}.parquet", tables[name]) for name in tables}
        first_s = last_s = None
        if time_column is not None:
            time_N = tables[time_column[0]][time_column[1]].to_numpy()
            first_s, last_s = int(time_N.min()), int(time_N.max())
        record = Record(provenance, first_s, last_s, files)
        (staging / RECORD_FILE).write_text(record.to_json(), encoding="utf-8")
        _replace(folder, staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return record


def load_record(folder: Path) -> Record:
    """Read `dataset.json` and check every file it names against its digest.

    Raises:
        BrokenDataSet: the record is missing or unreadable, or a file is not as recorded.
    """
    try:
        record = Record.from_json((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BrokenDataSet(folder, f"there is no {RECORD_FILE}, so it was never completed") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BrokenDataSet(folder, f"{RECORD_FILE} cannot be read ({error})") from error
    for name, file in record.files.items():
        path = folder / name
        if not path.is_file():
            raise BrokenDataSet(folder, f"{name} is missing")
        if sha256_of(path) != file.sha256:
            raise BrokenDataSet(folder, f"{name} is not the file that was prepared")
    return record


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, table: pa.Table) -> TableFile:
    pq.write_table(table, path, compression="zstd")
    return TableFile(rows=table.num_rows, size_bytes=path.stat().st_size, sha256=sha256_of(path))


def _replace(folder: Path, staging: Path) -> None:
    # A folder cannot be renamed onto one that holds files, so the old one steps aside first.
    old = folder.with_name(f"{staging.name}.old")
    if folder.exists():
        folder.rename(old)
    staging.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
