"""The rows of one entity: what is stored, with what the request says laid over it and the gaps filled.

A row that is missing, too old, damaged or another entity's is never used: it becomes the declared default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from rankd_contract.columns import Column
from rankd_contract.encoding import Block, Encoder
from rankd_contract.errors import ValueTypeError
from rankd_contract.keys import entity_hashes, key_prefix
from rankd_contract.packing import FeatureStatus, RowFormat
from rankd_contract.schema import (
    MISSING,
    UNKNOWN,
    Entity,
    FeatureSchema,
    FeatureView,
    FieldLayout,
    Kind,
    OnStale,
)
from rankd_service.domain import Fields, FieldValue
from rankd_service.errors import InvalidRequest, RejectReason, nearest, shown_key

__all__ = ["EntityPlan", "EntityRows", "Override", "taken_as_is", "unknown_field"]

_LISTS = frozenset({Kind.SEQUENCE, Kind.MULTI_VALUE})


@dataclass(frozen=True, slots=True)
class Override:
    """One field's request-time values, encoded, and the rows they belong to."""

    at: FieldLayout
    encoded: Block
    rows: Sequence[int]

    def apply(self, block: Block) -> None:
        """Lay the values over what is stored."""
        block.ids[self.rows, self.at.ids] = self.encoded.ids
        block.values[self.rows, self.at.values] = self.encoded.values


@dataclass(frozen=True, slots=True)
class EntityRows:
    """The encoded rows of a request's entities, complete, and what became of each stored one."""

    block: Block
    worst: NDArray[np.uint8]
    by_view: Mapping[str, NDArray[np.uint8]]
    defaulted: int
    ids_out_of_range: int


@dataclass(frozen=True, slots=True)
class _ViewPlan:
    """Where one view's rows are stored, how they are read, and which columns of the block are theirs."""

    view: FeatureView
    prefix: str
    rows: RowFormat
    ids: slice
    values: slice


class EntityPlan:
    """What is known of one entity's rows before any request."""

    def __init__(self, schema: FeatureSchema, entity: Entity, namespace: str, clock_skew_s: float) -> None:
        """Compile prefixes, row formats, the encoder and the sizes of the tables."""
        self.encoder = Encoder(schema, entity)
        self.views: list[_ViewPlan] = []
        self._skew_s = clock_skew_s
        at_ids = at_values = 0
        for view in schema.of(entity) if entity is not Entity.CONTEXT else ():
            ids, values = slice(at_ids, at_ids + view.num_ids), slice(at_values, at_values + view.num_values)
            prefix = key_prefix(namespace, schema, view)
            self.views.append(_ViewPlan(view, prefix, RowFormat(schema, view), ids, values))
            at_ids, at_values = ids.stop, values.stop
        sizes = [[schema.cardinality(f.field)] * f.field.num_ids for f in self.encoder.layout.fields]
        self._cardinalities = np.array(list(chain.from_iterable(sizes)), np.uint32)
        self._empty = Block.empty(1, self.encoder.layout)

    def read(
        self,
        ids: Sequence[str],
        rows: Sequence[bytes | None] | FeatureStatus,
        overrides: Sequence[Override],
        now_s: float,
    ) -> EntityRows:
        """Unpack the rows of n entities, age them, lay request-time fields over them, fill gaps."""
        n = len(ids)
        block = Block.empty(n, self.encoder.layout)
        by_view: dict[str, NDArray[np.uint8]] = {}
        defaulted: NDArray[np.bool_] | None = None
        hashes = entity_hashes(self.views[0].view, ids)
        for at, plan in enumerate(self.views):
            if isinstance(rows, FeatureStatus):
                statuses = np.full(n, rows, np.uint8)
            else:
                statuses = self._unpack(plan, rows[at * n : (at + 1) * n], hashes, block, now_s)
            by_view[plan.view.name] = statuses
            if statuses.any():
                missing = statuses != FeatureStatus.PRESENT
                if plan.view.on_stale is OnStale.USE:
                    missing &= statuses != FeatureStatus.OUTSIDE_MAX_AGE
                defaulted = missing if defaulted is None else defaulted | missing
        for given in overrides:
            given.apply(block)
        ids_out_of_range = self._bring_into_range(block)
        return EntityRows(
            block=self.encoder.fill_defaults(block),
            worst=reduce(np.maximum, by_view.values()),
            by_view=by_view,
            defaulted=0 if defaulted is None else int(defaulted.sum()),
            ids_out_of_range=ids_out_of_range,
        )

    def _unpack(
        self,
        plan: _ViewPlan,
        rows: Sequence[bytes | None],
        hashes: NDArray[np.uint64],
        block: Block,
        now_s: float,
    ) -> NDArray[np.uint8]:
        """Unpack one view -> its statuses. Rows too old for a view that wants none are taken out again."""
        part = Block(block.ids[:, plan.ids], block.values[:, plan.values])
        times_ms = np.full(len(rows), int(now_s * 1000))  # rows that are not written are not stale
        statuses = plan.rows.unpack(rows, hashes, part, times_ms)
        if plan.view.max_age_s is None:
            return statuses
        # A row from the future beyond the clocks' skew has a wrong time, so its age is not known either.
        oldest_ms, newest_ms = 1000 * (now_s - plan.view.max_age_s), 1000 * (now_s + self._skew_s)
        if times_ms.min() >= oldest_ms and times_ms.max() <= newest_ms:
            return statuses
        stale = (times_ms < oldest_ms) | (times_ms > newest_ms)
        statuses[stale] = FeatureStatus.OUTSIDE_MAX_AGE
        if plan.view.on_stale is OnStale.DEFAULT:
            part.ids[stale] = self._empty.ids[:, plan.ids]
            part.values[stale] = self._empty.values[:, plan.values]
        return statuses

    def _bring_into_range(self, block: Block) -> int:
        """Turn ids beyond their table into `unknown`: the CPU would raise, CUDA would read anything."""
        beyond = block.ids.view(np.uint32) >= self._cardinalities
        if not beyond.any():
            return 0
        block.ids[beyond] = UNKNOWN
        return int(beyond.sum())

    def given(self, fields_by_row: Mapping[int, Fields], place: str) -> list[Override]:
        """Turn request-time fields into columns. Raises InvalidRequest."""
        by_name: dict[str, tuple[list[int], list[FieldValue]]] = {}
        for row, fields in fields_by_row.items():
            for name, value in fields.items():
                rows, values = by_name.setdefault(name, ([], []))
                rows.append(row)
                values.append(value)
        overrides = []
        for name, (rows, values) in by_name.items():
            at = self.encoder.by_name.get(name)
            if at is None:
                raise unknown_field(
                    f"{place.format(row=rows[0])}.{shown_key(name)}", name, sorted(self.encoder.by_name)
                )
            overrides.append(self.encode(taken_as_is(at), values, rows, f"{place}.{name}"))
        return overrides

    def encode(
        self, at: FieldLayout, values: Sequence[FieldValue], rows: Sequence[int], place: str
    ) -> Override:
        """Encode request-time values of one field. Raises InvalidRequest; `place` may hold `{row}`."""
        field = at.field
        if field.kind in _LISTS:
            # Encoding keeps the first entries; cutting before bounds the work a long list can cause.
            values = [v[: field.max_length] if isinstance(v, list) else v for v in values]
        alone = replace(at, ids=slice(0, field.num_ids), values=slice(0, field.num_values))
        encoded = Block(
            np.full((len(values), field.num_ids), MISSING, np.int32),
            np.full((len(values), field.num_values), np.nan, np.float32),
        )
        try:
            self.encoder.encode_field(alone, Column.from_python(values, field), encoded, slice(None))
        except ValueTypeError as error:
            path = place.format(row=rows[error.row])
            raise InvalidRequest(RejectReason.SCHEMA, f"expected {error.expected}", path) from error
        return Override(at, encoded, rows)


def taken_as_is(at: FieldLayout) -> FieldLayout:
    """Drop the derivation: the request gives the derived value itself, such as the hour."""
    return replace(at, field=replace(at.field, derive=None)) if at.field.derive else at


def unknown_field(path: str, name: str, known: Sequence[str]) -> InvalidRequest:
    """Return the refusal of a request-time field that is in no view."""
    return InvalidRequest(RejectReason.SCHEMA, f"no such field; {nearest(name, known)}", path)
