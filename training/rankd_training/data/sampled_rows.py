"""Rows to look at before anything is known of them: training rows, and of many some from all along the file.

What is learned from valid or test rows, a vocabulary or a mean, would tell a model of what it is judged on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rankd_training.data.libsvm import LISTS, LibsvmFile
from rankd_training.data.row_files import (
    BATCH_ROWS,
    RowFile,
    common_batches,
    common_schema,
    split_by_name,
)
from rankd_training.data.splits import SPLIT, SPLIT_NAMES, SplitPlan
from rankd_training.errors import ExamplesError

__all__ = ["SAMPLE_ROWS", "sampled_rows"]

SAMPLE_ROWS = 500_000
TRAIN = SPLIT_NAMES[0]
_SHOWN = 5


def sampled_rows(path: Path, files: Sequence[RowFile]) -> pa.Table:
    """Take pieces spread evenly over all files, SAMPLE_ROWS rows at most -> their training rows.

    Rows are told apart as `rankd train` does where it is told nothing: by their column `split`, else by the
    files' names, else by a hash of the row's number. Dictionaries come as what they stand for.

    Raises:
        ExamplesError: a file is damaged, files do not go together, or no row is for training.
    """
    schema = _columns(path, files)
    by_name = None if SPLIT in schema.names else split_by_name(files, path)
    if by_name is not None:
        files = [file for file, split in zip(files, by_name, strict=True) if split == TRAIN]
    num_rows = sum(file.num_rows for file in files)
    dealt = SPLIT not in schema.names and by_name is None
    by_hash = SplitPlan().codes(num_rows, None) == 0 if dealt else None
    num_pieces = sum(math.ceil(file.num_rows / BATCH_ROWS) for file in files)
    stride = max(1, math.ceil(num_pieces * BATCH_ROWS / SAMPLE_ROWS))
    taken, first_row = [], 0
    for number, batch in enumerate(common_batches(files, schema)):
        if number % stride == 0:
            taken.append(_of_training(batch, None if by_hash is None else by_hash[first_row:]))
        first_row += batch.num_rows
    table = pa.Table.from_batches(taken, schema)
    if not table.num_rows:
        raise ExamplesError(path, f"has no rows of '{TRAIN}' to look at" if num_rows else "has no rows")
    return table


def _columns(path: Path, files: Sequence[RowFile]) -> pa.Schema:
    """Those that every file has. Refuses a folder of different tables, such as events, users and items."""
    schema = common_schema(files)
    names = [name for name in schema.names if all(name in file.schema.names for file in files)]
    for file in files:
        others = [name for name in file.schema.names if name not in names]
        if len(others) > len(names):
            has = f"{file.path.name} has {', '.join(others[:_SHOWN])}, which others have not"
            problem = f"is a folder of several tables: {has}; name the file of labelled rows"
            raise ExamplesError(path, problem)
    if any(isinstance(file, LibsvmFile) and not file.even for file in files):
        names = [name for name in names if name in LISTS]
    return pa.schema([schema.field(name) for name in names])


def _of_training(batch: pa.RecordBatch, mask: Any) -> pa.RecordBatch:
    if mask is not None:
        return batch.filter(pa.array(np.asarray(mask[: batch.num_rows], np.bool_)))
    if SPLIT not in batch.schema.names:
        return batch
    split: Any = batch.column(SPLIT)
    if not (pa.types.is_string(split.type) or pa.types.is_large_string(split.type)):
        return batch  # training says what is wrong with it
    return batch.filter(pc.equal(split, pa.scalar(TRAIN, split.type)))
