"""Encoded examples -> one flat table for trees, which split columns and know no embeddings.

A field with one id is a column of categories, or of ordered numbers where the id is a bucket. A plain number
stays one. A list becomes how many values it has, its first value, and, where few values are possible, how
often each occurs. Categories are numbered by how often they occur in the training rows, the most frequent
first; what training has not seen is missing (NaN).

Legend: n rows, C columns, L positions of a list.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankd_contract.schema import FIRST_VALUE, MISSING, Entity, Kind
from rankd_training.data.splits import SPLIT_NAMES
from rankd_training.examples.examples import Examples

__all__ = ["FlatTable", "flatten"]

TRAIN = SPLIT_NAMES[0]
MOST_COUNTED = 64  # values of a list that get a column each


@dataclass(frozen=True, slots=True)
class FlatTable:
    """Columns `value_nC` float32, which of them are categories, and their names."""

    value_nC: NDArray[np.float32]
    categorical_C: NDArray[np.bool_]
    names: tuple[str, ...]


def flatten(examples: Examples) -> FlatTable:
    """Lay all fields of all rows out as columns, in the schema's order of entities and fields."""
    columns: list[tuple[str, bool, NDArray[np.float32]]] = []
    train_n = examples.rows[TRAIN]
    for entity in Entity:
        block = examples.blocks[entity]
        for entry in examples.schema.layout(entity).fields:
            field = entry.field
            if not field.num_ids:
                columns.append((field.name, False, block.values[:, entry.values.start]))
                continue
            ids_nL = block.ids[:, entry.ids]
            if field.kind in {Kind.SEQUENCE, Kind.MULTI_VALUE}:
                columns += _list(field.name, ids_nL, examples.schema.cardinality(field), train_n)
            elif field.bucketized:
                ordered_n = np.where(ids_nL[:, 0] == MISSING, np.nan, ids_nL[:, 0])
                columns.append((field.name, False, ordered_n.astype(np.float32)))
            else:
                columns.append((field.name, True, _by_frequency(ids_nL[:, 0], train_n)))
    names, categorical, values = zip(*columns, strict=True)
    return FlatTable(np.stack(values, axis=1), np.array(categorical), tuple(names))


def _list(
    name: str, ids_nL: NDArray[np.int32], cardinality: int, train_n: NDArray[np.int64]
) -> list[tuple[str, bool, NDArray[np.float32]]]:
    columns = [
        (f"{name}.length", False, (ids_nL != MISSING).sum(1).astype(np.float32)),
        (f"{name}.first", True, _by_frequency(ids_nL[:, 0], train_n)),
    ]
    if cardinality <= MOST_COUNTED:
        columns += [
            (f"{name}.{value}", False, (ids_nL == value).sum(1).astype(np.float32))
            for value in range(FIRST_VALUE, cardinality)
        ]
    return columns


def _by_frequency(id_n: NDArray[np.int32], train_n: NDArray[np.int64]) -> NDArray[np.float32]:
    known, count = np.unique(id_n[train_n], return_counts=True)
    rank = np.empty(len(known), np.float32)
    rank[np.argsort(-count, kind="stable")] = np.arange(len(known))
    at_n = np.minimum(np.searchsorted(known, id_n), len(known) - 1)
    return np.where(known[at_n] == id_n, rank[at_n], np.nan).astype(np.float32)
