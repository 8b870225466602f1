"""Examples: labelled rows, encoded once through the contract into the blocks a model reads.

Read by column from one Parquet file with a `split` column (train, valid, test). What does not fit is
refused with file, column and row. Knows no torch.

Legend: n rows, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rankd_contract.columns import Column
from rankd_contract.encoding import Block, Encoder
from rankd_contract.errors import ContractError, ValueTypeError
from rankd_contract.schema import Entity, FeatureSchema
from rankd_training.data.prepared import sha256_of
from rankd_training.data.splits import SPLIT_NAMES
from rankd_training.errors import ExamplesError

__all__ = ["SPLIT", "Examples", "load_examples"]

SPLIT = "split"
TRAIN, VALID, _ = SPLIT_NAMES


@dataclass(frozen=True, slots=True)
class Examples:
    """Encoded rows with their labels.

    Attributes:
        schema: what they are encoded under.
        blocks: n rows of each entity, defaults filled in.
        label_nT: float32, 0 or 1, a column a task in the schema's order.
        group_n: an integer code of whose row it is, for the AUC within users.
        rows: indices of each split's rows, in file order.
        sha256: digest of the file.
    """

    schema: FeatureSchema
    blocks: Mapping[Entity, Block]
    label_nT: npt.NDArray[np.float32]
    group_n: npt.NDArray[np.int64]
    rows: Mapping[str, npt.NDArray[np.int64]]
    sha256: str

    def __len__(self) -> int:
        return len(self.label_nT)


def load_examples(path: Path, schema: FeatureSchema, *, group_column: str | None = None) -> Examples:
    """Read and encode a Parquet file of examples.

    Args:
        path: the file; a column for each field's source, each task's label, and `split`.
        schema: what to encode under.
        group_column: whose row it is; by default the key of the schema's first user view, and every row its
            own where the schema has no user.

    Raises:
        ExamplesError: a column is missing or of the wrong type, a label is not 0 or 1 or has one class only,
            or a split is empty; names file, column and row.
    """
    users = schema.of(Entity.USER)
    group_column = group_column or (users[0].key if users else None)
    wanted = {f.source: f"field '{f.name}'" for f in schema.fields.values()}
    wanted |= {task.label: f"the label of task '{task.name}'" for task in schema.tasks}
    wanted |= {SPLIT: "train, valid or test"}
    if group_column is not None:
        wanted[group_column] = "the rows' group"
    table = _read(path, wanted)
    rows = _split_rows(path, table)
    labels = [_label(path, table, task.label, rows) for task in schema.tasks]
    return Examples(
        schema=schema,
        blocks={entity: _encode(path, table, schema, entity) for entity in Entity},
        label_nT=np.stack(labels, axis=1),
        group_n=np.arange(table.num_rows) if group_column is None else _codes(table, group_column),
        rows=rows,
        sha256=sha256_of(path),
    )


def _read(path: Path, wanted: Mapping[str, str]) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            for column, purpose in wanted.items():
                if column not in names:
                    raise ExamplesError(
                        path, f"no such column ({purpose}); the file has {', '.join(names)}", column=column
                    )
            table = file.read(columns=list(wanted))
    except (OSError, pa.ArrowException) as error:
        raise ExamplesError(path, f"cannot be read as Parquet: {error}") from error
    if table.num_rows == 0:
        raise ExamplesError(path, "has no rows")
    return table.combine_chunks()


def _encode(path: Path, table: pa.Table, schema: FeatureSchema, entity: Entity) -> Block:
    encoder = Encoder(schema, entity)
    block = Block.empty(table.num_rows, encoder.layout)
    for entry in encoder.layout.fields:
        source = entry.field.source
        try:
            column = Column.from_arrow(_array(table, source), entry.field)
            encoder.encode_field(entry, column, block, slice(None))
        except ValueTypeError as error:
            raise ExamplesError(path, str(error), column=source, row=error.row) from error
        except ContractError as error:
            raise ExamplesError(path, str(error), column=source) from error
    return encoder.fill_defaults(block)


def _split_rows(path: Path, table: pa.Table) -> dict[str, npt.NDArray[np.int64]]:
    split_n = np.asarray(_array(table, SPLIT).to_pylist(), dtype=object)
    unknown_n = ~np.isin(split_n, SPLIT_NAMES)
    if unknown_n.any():
        row = int(unknown_n.argmax())
        raise ExamplesError(
            path, f"expected {', '.join(SPLIT_NAMES)}, got {split_n[row]!r}", column=SPLIT, row=row
        )
    rows = {name: np.flatnonzero(split_n == name) for name in SPLIT_NAMES}
    for name, found in rows.items():
        if not len(found):
            raise ExamplesError(path, f"no row says '{name}'; each of the splits needs rows", column=SPLIT)
    return rows


def _label(
    path: Path, table: pa.Table, column: str, rows: Mapping[str, npt.NDArray[np.int64]]
) -> npt.NDArray[np.float32]:
    array = _array(table, column)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        raise ExamplesError(path, f"a label is 0 or 1 or a bool, got {array.type}", column=column)
    label_n = np.asarray(array.cast(pa.float64()).fill_null(np.nan).to_numpy(), np.float64)
    wrong_n = (label_n != 0) & (label_n != 1)  # true for NaN
    if wrong_n.any():
        row = int(wrong_n.argmax())
        got = "null or NaN" if np.isnan(label_n[row]) else f"{label_n[row]:g}"
        raise ExamplesError(path, f"a label is 0 or 1, got {got}", column=column, row=row)
    for split in (TRAIN, VALID):  # what is learned from, and what decides when to stop
        classes = np.unique(label_n[rows[split]])
        if len(classes) == 1:
            problem = f"the label is {classes[0]:g} in every row of {split}; both classes are needed"
            raise ExamplesError(path, problem, column=column)
    return label_n.astype(np.float32)


def _codes(table: pa.Table, column: str) -> npt.NDArray[np.int64]:
    codes = pc.fill_null(_array(table, column).dictionary_encode().indices, -1)
    return np.asarray(codes.to_numpy(), np.int64)


def _array(table: pa.Table, column: str) -> Any:
    """The column as one array; Arrow keeps a table's columns chunked even when there is one chunk."""
    chunked = table[column]
    return chunked.chunk(0) if chunked.num_chunks == 1 else chunked.combine_chunks()
