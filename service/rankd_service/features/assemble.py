"""Ids, stored rows and request-time fields -> the tensors of one batch.

Everything that depends on the schema alone is compiled once, when a model is loaded. What a request gives
overrides what is stored; what is missing becomes the declared default. There is no Python loop over rows
where all are present.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankd_contract.encoding import Block
from rankd_contract.packing import FeatureStatus
from rankd_contract.schema import Entity, FeatureSchema
from rankd_contract.signature import tensors
from rankd_service.domain import Candidates, Fields, RankRequest, User
from rankd_service.errors import InvalidRequest, RejectReason
from rankd_service.features.entity_rows import Draft, EntityPlan
from rankd_service.features.near_caches import NearCaches
from rankd_service.features.overrides import (
    Override,
    check_moment,
    encode_override,
    read_overrides,
    taken_as_is,
    unknown_field,
)
from rankd_service.inference.batch import Batch

__all__ = ["Assembler", "Drafts", "Features", "Overrides"]

_TIMESTAMP = "timestamp"
_SECONDS_AN_HOUR = 3600
_MAX_CONTEXTS, _LONGEST_CACHED = 4096, 64

Overrides = Mapping[Entity, Sequence[Override]]


@dataclass(frozen=True, slots=True)
class Features:
    """One batch, and what became of each row that was read.

    `statuses` has the worst status over an entity's views for each row, `by_view` each view's own;
    `defaulted` counts candidates of which at least one stored view is a default row, `stale` those with one
    that was near at hand while the store did not answer, `lost` and `unreadable` those that rest on a row
    which the store did not give, or which was there and made no sense: all of them, where it is the user's.
    """

    batch: Batch
    statuses: Mapping[Entity, NDArray[np.uint8]]
    by_view: Mapping[str, NDArray[np.uint8]]
    defaulted: int
    lost: int
    stale: int
    unreadable: int
    ids_out_of_range: int


@dataclass(frozen=True, slots=True)
class Drafts:
    """The user's row and the candidates' rows as far as they are near at hand."""

    user: Draft
    items: Draft

    @property
    def keys(self) -> list[str]:
        """Keys of the stored rows that are still needed: the user's views, then each item view."""
        return self.user.keys + self.items.keys


class Assembler:
    """Compiled reading plan of one model. Nothing changes but what is kept for later requests.

    Rows of items are kept in `near`, where it is given. Users' rows are not: they change as the users act.
    """

    def __init__(
        self, schema: FeatureSchema, namespace: str, clock_skew_s: float, near: NearCaches | None = None
    ) -> None:
        """Compile keys, row formats, encoders and defaults."""
        kept = {Entity.ITEM: near}
        self._plans = {e: EntityPlan(schema, e, namespace, clock_skew_s, kept.get(e)) for e in Entity}
        self.views = tuple(view.name for view in schema.stored_views)
        self.prefixes = tuple(view.prefix for plan in self._plans.values() for view in plan.views)
        self._contexts: dict[Hashable, Block] = {}
        context = self._plans[Entity.CONTEXT].encoder
        derived = {f.field.source for f in context.layout.fields if f.field.derive}
        self._context_names = sorted({*context.by_name, *derived, _TIMESTAMP})

    def overrides(self, request: RankRequest) -> Overrides:
        """Read the request-time fields. Raises InvalidRequest naming the field, before any fetch."""
        user, candidates = request.user, request.candidates
        if not user.id and self._plans[Entity.USER].views:
            raise InvalidRequest(RejectReason.SCHEMA, "this key is required", "user")
        of_user, of_items = self._plans[Entity.USER].encoder, self._plans[Entity.ITEM].encoder
        return {
            Entity.USER: read_overrides(of_user, {0: user.fields}, "user.fields") if user.fields else (),
            Entity.ITEM: read_overrides(of_items, candidates.fields, "items.{row}.fields")
            if candidates.fields
            else (),
        }

    def context(self, given: Fields, now_s: float) -> Block:
        """Encode the context of a request -> one row. A field given by name is taken as it is.

        Fields derived from a time are read off `timestamp`, which is now where it is not given.
        Raises InvalidRequest.
        """
        # Contexts repeat: few values each, and what is derived from a time is constant within its hour.
        key = _context_key(given, now_s)
        block = self._contexts.get(key)
        if block is None:
            block = self._encode_context(given, now_s)
            if key is not None:
                if len(self._contexts) >= _MAX_CONTEXTS:
                    self._contexts.clear()
                self._contexts[key] = block
        return block

    def _encode_context(self, given: Fields, now_s: float) -> Block:
        plan = self._plans[Entity.CONTEXT]
        for name in given:
            if name not in self._context_names:
                raise unknown_field("context", name, self._context_names)
        if given.get(_TIMESTAMP) is not None and _TIMESTAMP not in plan.encoder.by_name:
            # Whether anything is derived of it or not: a client's mistake should show before it matters.
            check_moment(given[_TIMESTAMP], f"context.{_TIMESTAMP}")
        block = Block.empty(1, plan.encoder.layout)
        for at in plan.encoder.layout.fields:
            field = at.field
            if field.name in given and not (field.derive and field.name == field.source):
                encode_override(
                    plan.encoder, taken_as_is(at), [given[field.name]], [0], f"context.{field.name}"
                ).apply(block)
            elif field.derive:
                source = _TIMESTAMP if given.get(field.source) is None else field.source
                value = given.get(source)
                value = int(now_s) if value is None else value
                encode_override(plan.encoder, at, [value], [0], f"context.{source}").apply(block)
        return plan.encoder.fill_defaults(block)

    def draft(self, user: User, candidates: Candidates, now_s: float) -> Drafts:
        """Take what is near at hand, and name the keys of the rest."""
        return Drafts(
            self._plans[Entity.USER].draft([user.id], now_s),
            self._plans[Entity.ITEM].draft(candidates.ids, now_s),
        )

    def assemble(
        self,
        drafts: Drafts,
        context: Block,
        overrides: Overrides,
        rows: Sequence[bytes | None] | FeatureStatus,
        now_s: float,
        lost: NDArray[np.uint8] | None = None,
    ) -> Features:
        """Build the batch from the rows under the drafts' keys, or from none and the status of all of them.

        `lost` has the status of each row that did not come where others did, and 0 of those that did.
        """
        num_users = len(drafts.user.keys)
        of_user, of_items = (
            (rows, rows) if isinstance(rows, FeatureStatus) else (rows[:num_users], rows[num_users:])
        )
        lost_user, lost_items = (None, None) if lost is None else (lost[:num_users], lost[num_users:])
        user = self._plans[Entity.USER].read(drafts.user, of_user, overrides[Entity.USER], now_s, lost_user)
        items = self._plans[Entity.ITEM].read(
            drafts.items, of_items, overrides[Entity.ITEM], now_s, lost_items
        )
        n = len(drafts.items.ids)
        blocks = {Entity.USER: user.block, Entity.ITEM: items.block, Entity.CONTEXT: context}
        return Features(
            batch=Batch(tensors(blocks, np.zeros(n, np.int64)), items.stamps),
            statuses={Entity.USER: user.worst, Entity.ITEM: items.worst},
            by_view={**user.by_view, **items.by_view},
            defaulted=items.defaulted,
            lost=n if user.lost else items.lost,
            stale=items.stale,
            unreadable=n if user.unreadable else items.unreadable,
            ids_out_of_range=user.ids_out_of_range + items.ids_out_of_range,
        )


def _context_key(given: Fields, now_s: float) -> Hashable:
    """Return what a context is known by, or None where keeping it would cost too much memory.

    Types are part of it: 1, 1.0 and True are equal, but not all of them are an hour.
    """
    if any(isinstance(v, list) or (isinstance(v, str) and len(v) > _LONGEST_CACHED) for v in given.values()):
        return None
    return (int(now_s) // _SECONDS_AN_HOUR, *((name, type(v), v) for name, v in given.items()))
