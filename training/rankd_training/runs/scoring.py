"""What a run's model says of rows that have no label: a file of examples in, a file of scores out.

Legend: n rows of a piece, T tasks.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from rankd_contract.arrow_whole import is_float, whole_numbers
from rankd_contract.encoding import Encoder
from rankd_contract.errors import ValueTypeError
from rankd_contract.schema import Entity
from rankd_contract.signature import ROW, tensors
from rankd_training.data.row_files import common_schema, open_rows
from rankd_training.errors import SettingError
from rankd_training.examples.columns import Piece
from rankd_training.examples.examples import encoded, pieces
from rankd_training.examples.layout import check_columns, sources
from rankd_training.runs.finished import Run, score

__all__ = ["score_file"]

ROW_COLUMN = "row"


def score_file(
    run: Run,
    path: Path,
    output: Path,
    *,
    keep: Sequence[str] = (),
    told: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Score every row of a file or folder, piece by piece -> how many rows there are.

    Writes Parquet: `row` (from 0, over all files), the columns that hold ids, those to keep, and a column
    `score_TASK` a task: float32, what the model says where it is served, so calibrated if the run is. It
    appears whole or not at all.

    Args:
        run: whose model.
        path: rows with the fields' columns; Parquet or libsvm.
        output: the file to write; one that is there is replaced.
        keep: further columns to copy.
        told: hears how many rows are done, of how many.

    Raises:
        SettingError: a column to keep is called as one of the scores'.
        ExamplesError: a column is missing or of the wrong type, or a file cannot be read.
    """
    files = open_rows(path)
    kinds = common_schema(files)
    ids = [view.key for view in run.schema.stored_views if view.key in kinds.names]
    kept = list(dict.fromkeys([*ids, *keep]))
    wanted = {**dict.fromkeys(kept, "a column to keep"), **sources(run.schema)}
    check_columns(files, run.schema, wanted)
    names = [f"score_{task.name}" for task in run.schema.tasks]
    if taken := sorted({ROW_COLUMN, *names}.intersection(kept)):
        raise SettingError(f"{taken[0]}: the file of scores has a column of its own that is called so")
    # Ids that pandas stored as floats are the whole numbers they are.
    types = {name: kinds.field(name).type for name in kept}
    types |= {name: pa.int64() for name in ids if is_float(types[name])}
    schema = pa.schema(
        [
            (ROW_COLUMN, pa.int64()),
            *types.items(),
            *((name, pa.float32()) for name in names),
        ]
    )
    encoders, total = [Encoder(run.schema, entity) for entity in Entity], sum(file.num_rows for file in files)
    output.parent.mkdir(parents=True, exist_ok=True)
    staging, done = output.with_name(f".{output.name}.{secrets.token_hex(4)}"), 0
    try:
        with pq.ParquetWriter(staging, schema) as writer:
            for _, piece in pieces(files, list(wanted)):
                score_nT = _scores(run, piece, encoders)
                columns = [
                    pa.array(np.arange(done, done + len(piece))),
                    *(_copied(piece, name, kind) for name, kind in types.items()),
                    *(pa.array(np.ascontiguousarray(score_n)) for score_n in score_nT.T),
                ]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
                done += len(piece)
                told(done, total)
        staging.replace(output)
    finally:
        staging.unlink(missing_ok=True)
    return done


def _copied(piece: Piece, name: str, kind: pa.DataType) -> Any:
    array = piece.column(name)
    try:
        if pa.types.is_integer(kind) and is_float(array.type):
            numbers, there = whole_numbers(name, array)
            return pa.array(numbers, kind, mask=~there)
        return array.cast(kind)
    except ValueTypeError as error:
        piece.refuse(name, f"expected {error.expected}, got {error.got}", error.row)
    except pa.ArrowException as error:
        piece.refuse(name, f"cannot be kept as {kind}, which other files need: {error}")


def _scores(run: Run, piece: Piece, encoders: Sequence[Encoder]) -> npt.NDArray[np.float32]:
    blocks = {encoder.layout.entity: encoded(piece, encoder) for encoder in encoders}
    arrays = tensors(blocks, np.arange(len(piece)))
    features = {name: torch.from_numpy(array) for name, array in arrays.items() if name != ROW}
    return run.calibration(score(run.model, features, len(piece)))
