"""Ids, stored rows and request-time fields -> the tensors of one batch.

Everything that depends on the schema alone is compiled once, when a model is loaded. What a request gives
overrides what is stored; what is missing, too old or doubtful becomes the declared default. There is no
Python loop over rows where all are present.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
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
from rankd_contract.signature import tensors
from rankd_service.domain import Candidates, Fields, FieldValue, RankRequest, User
from rankd_service.errors import InvalidRequest, RejectReason, nearest, shown_key

__all__ = ["Assembler", "Features", "Overrides"]

_TIMESTAMP = "timestamp"
_SECONDS_AN_HOUR = 3600
_MAX_CONTEXTS = 4096
_LISTS = frozenset({Kind.SEQUENCE, Kind.MULTI_VALUE})


@dataclass(frozen=True, slots=True)
class Features:
    """The tensors of one batch, and what became of each row that was read.

    `statuses` has the worst status over an entity's views for each row, `by_view` each view's own;
    `defaulted` counts candidates of which at least one stored view is a default row.
    """

    tensors: Mapping[str, NDArray[np.generic]]
    statuses: Mapping[Entity, NDArray[np.uint8]]
    by_view: Mapping[str, NDArray[np.uint8]]
    defaulted: int
    ids_out_of_range: int


@dataclass(frozen=True, slots=True)
class _Override:
    """One field's request-time values, encoded, and the rows they belong to."""

    at: FieldLayout
    encoded: Block
    rows: Sequence[int]

    def apply(self, block: Block) -> None:
        """Lay the values over what is stored."""
        block.ids[self.rows, self.at.ids] = self.encoded.ids
        block.values[self.rows, self.at.values] = self.encoded.values


Overrides = Mapping[Entity, Sequence[_Override]]


class Assembler:
    """Compiled reading plan of one model. Nothing changes but a cache; safe to share between threads."""

    def __init__(self, schema: FeatureSchema, namespace: str, clock_skew_s: float) -> None:
        """Compile keys, row formats, encoders and defaults."""
        self._plans = {entity: _EntityPlan(schema, entity, namespace, clock_skew_s) for entity in Entity}
        self.views = tuple(view.name for view in schema.stored_views)
        self._contexts: dict[Hashable, Block] = {}
        context = self._plans[Entity.CONTEXT].encoder
        derived = {f.field.source for f in context.layout.fields if f.field.derive}
        self._context_names = sorted({*context.by_name, *derived, _TIMESTAMP})

    def overrides(self, request: RankRequest) -> Overrides:
        """Read the request-time fields. Raises InvalidRequest naming the field, before any fetch."""
        user, candidates = request.user, request.candidates
        return {
            Entity.USER: self._plans[Entity.USER].given({0: user.fields}, "user.fields")
            if user.fields
            else (),
            Entity.ITEM: self._plans[Entity.ITEM].given(candidates.fields, "items.{row}.fields")
            if candidates.fields
            else (),
        }

    def context(self, given: Fields, now_s: float) -> Block:
        """Encode the context of a request -> one row. A field given by name is taken as it is.

        Fields derived from a time are read off `timestamp`, which is now where it is not given.
        Raises InvalidRequest.
        """
        # Contexts repeat: few values each, and what is derived from a time is constant within its hour.
        key = (int(now_s) // _SECONDS_AN_HOUR, *((name, type(v), _hashable(v)) for name, v in given.items()))
        block = self._contexts.get(key)
        if block is None:
            if len(self._contexts) >= _MAX_CONTEXTS:
                self._contexts.clear()
            block = self._contexts[key] = self._encode_context(given, now_s)
        return block

    def _encode_context(self, given: Fields, now_s: float) -> Block:
        plan = self._plans[Entity.CONTEXT]
        for name in given:
            if name not in self._context_names:
                raise _unknown_field(f"context.{shown_key(name)}", name, self._context_names)
        block = Block.empty(1, plan.encoder.layout)
        for at in plan.encoder.layout.fields:
            field = at.field
            if field.name in given and not (field.derive and field.name == field.source):
                plan.encode(_taken_as_is(at), [given[field.name]], [0], f"context.{field.name}").apply(block)
            elif field.derive:
                source = _TIMESTAMP if given.get(field.source) is None else field.source
                value = given.get(source)
                value = int(now_s) if value is None else value
                plan.encode(at, [value], [0], f"context.{source}").apply(block)
        return plan.encoder.fill_defaults(block)

    def keys(self, user: User, candidates: Candidates) -> list[str]:
        """Return the keys of every stored row of a request: the user's views, then each item view."""
        users = (view.prefix + user.id for view in self._plans[Entity.USER].views)
        items = ([view.prefix + i for i in candidates.ids] for view in self._plans[Entity.ITEM].views)
        return [*users, *chain.from_iterable(items)]

    def assemble(
        self,
        request: RankRequest,
        context: Block,
        overrides: Overrides,
        rows: Sequence[bytes | None] | FeatureStatus,
        now_s: float,
    ) -> Features:
        """Build the batch from the rows of `keys()`, or from none, with the reason why there are none."""
        num_users = len(self._plans[Entity.USER].views)
        of_user, of_items = (
            (rows, rows) if isinstance(rows, FeatureStatus) else (rows[:num_users], rows[num_users:])
        )
        user = self._plans[Entity.USER].read([request.user.id], of_user, overrides[Entity.USER], now_s)
        items = self._plans[Entity.ITEM].read(request.candidates.ids, of_items, overrides[Entity.ITEM], now_s)
        blocks = {Entity.USER: user.block, Entity.ITEM: items.block, Entity.CONTEXT: context}
        return Features(
            tensors=tensors(blocks, np.zeros(len(request.candidates), np.int64)),
            statuses={Entity.USER: user.worst, Entity.ITEM: items.worst},
            by_view={**user.by_view, **items.by_view},
            defaulted=items.defaulted,
            ids_out_of_range=user.ids_out_of_range + items.ids_out_of_range,
        )


@dataclass(frozen=True, slots=True)
class _Read:
    block: Block
    worst: NDArray[np.uint8]
    by_view: Mapping[str, NDArray[np.uint8]]
    defaulted: int
    ids_out_of_range: int


@dataclass(frozen=True, slots=True)
class _ViewPlan:
    view: FeatureView
    prefix: str
    rows: RowFormat
    ids: slice
    values: slice


class _EntityPlan:
    """What is known of one entity's rows before any request."""

    def __init__(self, schema: FeatureSchema, entity: Entity, namespace: str, clock_skew_s: float) -> None:
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
        overrides: Sequence[_Override],
        now_s: float,
    ) -> _Read:
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
        return _Read(
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
        times_ms = np.full(len(rows), int(now_s * 1000))
        statuses = plan.rows.unpack(rows, hashes, part, times_ms)
        if plan.view.max_age_s is None:
            return statuses
        # A row from the future beyond the clocks' skew has a wrong time, so its age is not known either.
        oldest_ms, newest_ms = 1000 * (now_s - plan.view.max_age_s), 1000 * (now_s + self._skew_s)
        if times_ms.min() >= oldest_ms and times_ms.max() <= newest_ms:
            return statuses
        stale = (times_ms < oldest_ms) | (
            times_ms > newest_ms
        )  # rows that were not written bear the time now
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

    def given(self, fields_by_row: Mapping[int, Fields], place: str) -> list[_Override]:
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
                raise _unknown_field(
                    f"{place.format(row=rows[0])}.{shown_key(name)}", name, sorted(self.encoder.by_name)
                )
            overrides.append(self.encode(_taken_as_is(at), values, rows, f"{place}.{name}"))
        return overrides

    def encode(
        self, at: FieldLayout, values: Sequence[FieldValue], rows: Sequence[int], place: str
    ) -> _Override:
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
        return _Override(at, encoded, rows)


def _taken_as_is(at: FieldLayout) -> FieldLayout:
    """Drop the derivation: the request gives the derived value itself, such as the hour."""
    return replace(at, field=replace(at.field, derive=None)) if at.field.derive else at


def _hashable(value: FieldValue) -> Hashable:
    return tuple((type(v), v) for v in value) if isinstance(value, list) else value


def _unknown_field(path: str, name: str, known: Sequence[str]) -> InvalidRequest:
    return InvalidRequest(RejectReason.SCHEMA, f"no such field; {nearest(name, known)}", path)
