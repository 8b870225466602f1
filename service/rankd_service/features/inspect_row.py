"""One stored row made readable: what the service would make of it, value by value.

A row holds encoded values. A vocabulary's value is shown as it was; of a hashed one only its bucket is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rankd_contract.encoding import Block
from rankd_contract.keys import entity_hashes, key_prefix
from rankd_contract.packing import FeatureStatus, RowFormat
from rankd_contract.schema import FIRST_VALUE, MISSING, UNKNOWN, FeatureSchema, FeatureView, Field, OnStale

__all__ = ["RowReport", "ValueReport", "inspect_row"]

_BUCKETS = {MISSING: None, UNKNOWN: "unknown"}


@dataclass(frozen=True, slots=True)
class ValueReport:
    """One field of the row: what is stored, and what a model reads in its place where nothing is."""

    field: str
    status: str
    stored: Any
    read_as: Any


@dataclass(frozen=True, slots=True)
class RowReport:
    """A row under its key. `age_s` is None where none can be read; `action` says what is done with it."""

    key: str
    status: str
    bytes: int
    age_s: float | None
    action: str
    values: tuple[ValueReport, ...]


def inspect_row(
    schema: FeatureSchema, view: FeatureView, entity_id: str, row: bytes | None, namespace: str, now_s: float
) -> RowReport:
    """Read one row as a request would at `now_s`, seconds since 1970."""
    key = key_prefix(namespace, schema, view) + entity_id
    block = Block(
        np.full((1, view.num_ids), MISSING, np.int32), np.full((1, view.num_values), np.nan, np.float32)
    )
    times_ms = np.zeros(1, np.int64)
    (found,) = RowFormat(schema, view).unpack([row], entity_hashes(view, [entity_id]), block, times_ms)
    status, age_s, action = FeatureStatus(found), None, "every field reads its default"
    if status is FeatureStatus.PRESENT:
        age_s, action = now_s - times_ms[0] / 1000, "used"
        if view.max_age_s is not None and age_s > view.max_age_s:
            status = FeatureStatus.OUTSIDE_MAX_AGE
            action = "used all the same" if view.on_stale is OnStale.USE else "every field reads its default"
    values = tuple(_values(schema, view, block)) if age_s is not None else ()
    return RowReport(key, status.name, len(row or b""), age_s, action, values)


def _values(schema: FeatureSchema, view: FeatureView, block: Block) -> list[ValueReport]:
    reports, at_ids, at_values = [], 0, 0
    for field in view.fields:
        if field.num_ids:
            ids = block.ids[0, at_ids : at_ids + field.num_ids].tolist()
            at_ids += field.num_ids
            present = [_shown(schema, field, i) for i in ids if i != MISSING]
            stored: Any = present if field.max_length > 1 else (present[0] if present else None)
        else:
            number = float(block.values[0, at_values])
            at_values += 1
            stored = None if np.isnan(number) else number
        empty = stored in (None, [])
        status = FeatureStatus.NULL_VALUE if empty else FeatureStatus.PRESENT
        reports.append(ValueReport(field.name, status.name, stored, field.default if empty else stored))
    return reports


def _shown(schema: FeatureSchema, field: Field, encoded: int) -> Any:
    if encoded in _BUCKETS:
        return _BUCKETS[encoded]
    if field.bucketized:
        return _range(field, encoded - FIRST_VALUE)
    vocabulary = schema.table(field).vocabulary
    if vocabulary is None or not 0 <= encoded - FIRST_VALUE < len(vocabulary):
        return f"bucket {encoded - FIRST_VALUE}"
    return vocabulary[encoded - FIRST_VALUE]


def _range(field: Field, at: int) -> str:
    """Which numbers fall into a bucket, before any other transform is undone."""
    edges = field.transforms[-1].edges
    if at <= 0:
        return f"below {edges[0]:g}"
    return f"{edges[at - 1]:g} and more" if at >= len(edges) else f"{edges[at - 1]:g} to {edges[at]:g}"
