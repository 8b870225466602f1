"""Files of rows, read in pieces of bounded size: Parquet, and libsvm text; one file or a folder of them.

A folder is read in the order of its paths. Where each path below it starts with train, valid (or val) or
test, as `train-0.parquet` or `test/part-3.parquet`, that names the split of its rows.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from rankd_contract.arrow_text import misencoded
from rankd_training.data.libsvm import SUFFIXES as LIBSVM
from rankd_training.data.libsvm import LibsvmFile
from rankd_training.data.prepared import sha256_of
from rankd_training.errors import ExamplesError

__all__ = [
    "BATCH_ROWS",
    "ParquetRows",
    "RowFile",
    "common_batches",
    "common_schema",
    "digest_of",
    "open_rows",
    "split_by_name",
]

# Small enough that the columns of a batch stay in the processor's cache while its rows are put together.
BATCH_ROWS = 16_384
PARQUET = (".parquet", ".pq")
_SPLIT = re.compile(r"(train|valid|val|test)", re.IGNORECASE)
_MAIN = "examples.parquet"


class RowFile(Protocol):
    """Rows of one file, by column."""

    @property
    def path(self) -> Path:
        """Where it lies."""

    @property
    def num_rows(self) -> int:
        """How many rows it has."""

    @property
    def schema(self) -> pa.Schema:
        """Its columns and their types."""

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows in their order, with these columns. Raises ExamplesError where the file is damaged."""


class ParquetRows:
    """A Parquet file, row group by row group."""

    def __init__(self, path: Path) -> None:
        """Read the footer. Raises ExamplesError where it is no Parquet, or two columns have one name."""
        self.path = path
        try:
            with pq.ParquetFile(path) as file:
                self.num_rows: int = file.metadata.num_rows
                self.schema: pa.Schema = file.schema_arrow
        except (OSError, pa.ArrowException) as error:
            raise ExamplesError(path, f"cannot be read as Parquet: {error}") from error
        for name, columns in Counter(self.schema.names).items():
            if columns > 1:
                raise ExamplesError(path, f"{columns} columns have this name; rename them", column=name)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows in their order, with these columns.

        Raises ExamplesError where the file is damaged, or text in it is not UTF-8.
        """
        first_row = 0
        try:
            # Buffered, or Arrow reads a row group's columns whole: memory would grow with the row group.
            with pq.ParquetFile(self.path, buffer_size=1 << 20, pre_buffer=False) as file:
                for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
                    if (found := misencoded(batch)) is not None:
                        column, row = found
                        problem = "expected text in UTF-8; write the file anew with the right encoding"
                        raise ExamplesError(self.path, problem, column=column, row=first_row + row)
                    yield batch
                    first_row += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise ExamplesError(self.path, f"the Parquet file is damaged: {error}") from error


def open_rows(path: Path) -> tuple[RowFile, ...]:
    """Open a file, or all files of a folder (of one that was prepared by name: its examples).

    Raises:
        ExamplesError: there is nothing to read, or it is in no form that we know.
    """
    if not path.exists():
        raise ExamplesError(path, "does not exist")
    if not path.is_dir():
        return (_open(path),)
    if (path / _MAIN).is_file():
        return (_open(path / _MAIN),)
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in (*PARQUET, *LIBSVM) and p.is_file())
    visible = [p for p in found if not any(part.startswith((".", "_")) for part in p.relative_to(path).parts)]
    if not visible:
        raise ExamplesError(path, f"holds no file that ends in {', '.join((*PARQUET, *LIBSVM))}")
    return tuple(_open(p) for p in visible)


def split_by_name(files: Sequence[RowFile], path: Path) -> list[str] | None:
    """The split of each file's rows by its name, or None where not every name says one."""
    splits = []
    for file in files:
        if not path.is_dir():
            return None
        match = _SPLIT.match(file.path.relative_to(path).parts[0])
        if match is None:
            return None
        splits.append({"val": "valid"}.get(match[0].lower(), match[0].lower()))
    return splits


def common_schema(files: Sequence[RowFile]) -> pa.Schema:
    """Return the columns of all files, dictionaries as what they stand for.

    Where files differ, as int32 beside int64, the wider type. Raises ExamplesError where none is wider.
    """
    common = _plain(files[0].schema)
    for file in files[1:]:
        plain = _plain(file.schema)
        if plain != common:
            try:
                common = pa.unify_schemas([common, plain], promote_options="permissive")
            except pa.ArrowException as error:
                problem = f"its columns do not go with those of {files[0].path.name}: {error}"
                raise ExamplesError(file.path, problem) from error
    return common


def common_batches(files: Sequence[RowFile], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Read columns of all files with these types. Raises ExamplesError where one has not the column."""
    names = schema.names
    for file in files:
        for name in names:
            if name not in file.schema.names:
                raise ExamplesError(file.path, "no such column, which other files have", column=name)
        for batch in file.batches(names):
            try:
                yield batch.select(names).cast(schema)
            except pa.ArrowException as error:
                raise ExamplesError(
                    file.path, f"cannot be read as the other files' types: {error}"
                ) from error


def digest_of(files: Sequence[RowFile]) -> str:
    """SHA-256 of a file; of several, of their digests in order."""
    digests = [sha256_of(file.path) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _plain(schema: pa.Schema) -> pa.Schema:
    kinds: list[Any] = schema.types
    plain = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in kinds]
    return pa.schema(list(zip(schema.names, plain, strict=True)))


def _open(path: Path) -> RowFile:
    suffix = path.suffix.lower()
    if suffix in LIBSVM:
        return LibsvmFile(path)
    if suffix in PARQUET or not suffix:
        return ParquetRows(path)
    raise ExamplesError(
        path,
        f"is neither Parquet ({', '.join(PARQUET)}) nor libsvm text ({', '.join(LIBSVM)}) by its "
        "name; pandas, DuckDB and others write Parquet",
    )
