"""How the rows of a run or a trial are read again: the settings that decide it, and columns as they stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from rankd_contract.schema import FeatureSchema
from rankd_training.config import read_config
from rankd_training.data.row_files import common_batches, common_schema, digest_of, open_rows
from rankd_training.examples.examples import Examples, examples_of
from rankd_training.settings import TrainSettings

__all__ = ["DEALING", "digest", "examples_for", "raw_batches", "raw_schema", "reading_of"]

# Those of `TrainSettings` that deal out rows which name no split, and all that say which rows there are.
DEALING = ("split", "split_time", "split_seed")
READING = (*DEALING, "group_column", "in_memory_mb")


def reading_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Take those settings that decide how rows are read."""
    return {name: settings[name] for name in READING if settings.get(name) is not None}


def examples_for(
    path: Path, schema: FeatureSchema, reading: Mapping[str, Any], *, to_train: bool = True
) -> Examples:
    """Read and encode rows as such settings say. Raises ExamplesError."""
    nowhere = {"examples": path, "schema": Path(), "output": Path()}
    return examples_of(read_config(TrainSettings, {**reading, **nowhere}), schema, to_train=to_train)


def raw_schema(path: Path) -> pa.Schema:
    """Return the columns that rows have, dictionaries as what they stand for. Raises ExamplesError."""
    return common_schema(open_rows(path))


def raw_batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Read columns, all batches with the types of `raw_schema`, in the order of the rows.

    Raises ExamplesError.
    """
    files = open_rows(path)
    whole = common_schema(files)
    yield from common_batches(files, pa.schema([whole.field(name) for name in columns]))


def digest(path: Path) -> str:
    """Return the SHA-256 of the rows' files. Raises ExamplesError."""
    return digest_of(open_rows(path))
