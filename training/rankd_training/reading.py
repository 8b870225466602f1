"""How the rows of a run or a trial are read again: the settings that decide it, and columns as they stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rankd_contract.schema import FeatureSchema
from rankd_training.data.prepared import sha256_of
from rankd_training.errors import ExamplesError
from rankd_training.examples import Examples, load_examples

__all__ = ["digest", "examples_for", "raw_batches", "raw_schema", "reading_of"]

# Those of `TrainSettings` that say which rows there are and whose they are.
READING = ("group_column",)


def reading_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Take those settings that decide how rows are read."""
    return {name: settings[name] for name in READING if settings.get(name) is not None}


def examples_for(path: Path, schema: FeatureSchema, reading: Mapping[str, Any]) -> Examples:
    """Read and encode rows as such settings say. Raises ExamplesError."""
    return load_examples(path, schema, group_column=reading.get("group_column"))


def raw_schema(path: Path) -> pa.Schema:
    """Return the columns that rows have. Raises ExamplesError."""
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise ExamplesError(path, f"cannot be read as Parquet: {error}") from error


def raw_batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Read columns as they stand, in the order of the rows. Raises ExamplesError."""
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(columns=list(columns))
    except (OSError, pa.ArrowException) as error:
        raise ExamplesError(path, f"cannot be read as Parquet: {error}") from error


def digest(path: Path) -> str:
    """Return the SHA-256 of the rows' file. Raises ExamplesError."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise ExamplesError(path, f"cannot be read: {error.strerror or error}") from error
