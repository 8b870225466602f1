"""Rows of the mixed schema, written to a file and read as examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from rankd_training.examples.examples import Examples, load_examples
from tests.training.fields import mixed_schema
from tests.training.tables import examples_table, write

__all__ = ["load", "repeated"]


def load(folder: Path, table: pa.Table | None = None, **arguments: Any) -> Examples:
    """Write a table, the small one by default, and read it."""
    path, _ = write(folder, table)
    return load_examples(path, mixed_schema(), **arguments)


def repeated(times: int) -> pa.Table:
    """The small table so many times over."""
    return pa.concat_tables([examples_table()] * times).combine_chunks()
