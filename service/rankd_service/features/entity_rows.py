"""The rows of one entity: what is stored, with what the request says laid over it and the gaps filled.

A row that is missing, too old, damaged or another entity's is never used: it becomes the declared default,
and a field that reads the id itself has it from the request.
What is near at hand is taken before the store is read, so that only the rest is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from rankd_contract.encoding import Block, Encoder
from rankd_contract.keys import entity_hashes, key_prefix
from rankd_contract.packing import FeatureStatus, RowFormat
from rankd_contract.schema import (
    UNKNOWN,
    Entity,
    FeatureSchema,
    FeatureView,
    FieldLayout,
    OnStale,
)
from rankd_service.features.near_cache import NearCache
from rankd_service.features.near_caches import NearCaches
from rankd_service.features.overrides import Override, encode_ids
from rankd_service.features.view_rows import ViewRows

__all__ = ["Draft", "EntityPlan", "EntityRows"]

_NOT_GIVEN = (FeatureStatus.DEFAULTED, FeatureStatus.TIMED_OUT)


@dataclass(frozen=True, slots=True)
class EntityRows:
    """The encoded rows of a request's entities, complete, and what became of each stored one.

    `defaulted`, `lost`, `stale` and `unreadable` count entities of which at least one view is a default row,
    one because the store did not answer, one that was near at hand while it did not, or one that was there
    and made no sense; a row of which the request gives every field is read for nothing and counts for none.

    `stamps` are those that the near cache gave the rows which are exactly what it keeps, 0 elsewhere; where
    an entity has several views or none, no stamp stands for a whole row.
    """

    block: Block
    stamps: NDArray[np.int64]
    worst: NDArray[np.uint8]
    by_view: Mapping[str, NDArray[np.uint8]]
    defaulted: int
    lost: int
    stale: int
    unreadable: int
    ids_out_of_range: int


@dataclass(frozen=True, slots=True)
class _ViewPlan:
    """Where one view's rows are stored, how they are read, and which columns of the block are theirs."""

    view: FeatureView
    prefix: str
    rows: RowFormat
    ids: slice
    values: slice
    near: NearCache | None
    id_fields: Sequence[FieldLayout]


@dataclass(frozen=True, slots=True)
class _ViewDraft:
    """One view's rows before the store is read: its columns of the block, and which rows it still lacks."""

    plan: _ViewPlan
    rows: ViewRows
    absent: NDArray[np.intp]
    mark: int


@dataclass(frozen=True, slots=True)
class Draft:
    """The rows of n entities as far as they are near at hand, and the keys of those that are not."""

    ids: Sequence[str]
    block: Block
    views: Sequence[_ViewDraft]
    keys: list[str]


class EntityPlan:
    """What is known of one entity's rows before any request."""

    def __init__(
        self,
        schema: FeatureSchema,
        entity: Entity,
        namespace: str,
        clock_skew_s: float,
        near: NearCaches | None = None,
    ) -> None:
        """Compile prefixes, row formats, the encoder and the sizes of the tables."""
        self.encoder = Encoder(schema, entity)
        self.views: list[_ViewPlan] = []
        self._skew_s = clock_skew_s
        at_ids = at_values = 0
        for view in schema.of(entity) if entity is not Entity.CONTEXT else ():
            ids, values = slice(at_ids, at_ids + view.num_ids), slice(at_values, at_values + view.num_values)
            prefix = key_prefix(namespace, schema, view)
            cache = near.of(prefix, view.num_ids, view.num_values) if near else None
            id_fields = [at for at in self.encoder.layout.fields if view.reads_key(at.field)]
            self.views.append(_ViewPlan(view, prefix, RowFormat(schema, view), ids, values, cache, id_fields))
            at_ids, at_values = ids.stop, values.stop
        sizes = [[schema.cardinality(f.field)] * f.field.num_ids for f in self.encoder.layout.fields]
        self._cardinalities = np.array(list(chain.from_iterable(sizes)), np.uint32)
        self._empty = Block.empty(1, self.encoder.layout)

    def draft(self, ids: Sequence[str], now_s: float) -> Draft:
        """Take what is near at hand of n entities' rows, and name the keys of the rest."""
        block, views, keys = Block.empty(len(ids), self.encoder.layout), [], []
        for plan in self.views:
            rows = ViewRows(
                Block(block.ids[:, plan.ids], block.values[:, plan.values]),
                times_ms=np.full(len(ids), int(now_s * 1000)),  # rows that are not written are not stale
                stamps=np.zeros(len(ids), np.int64),
            )
            mark, absent = 0, None
            if plan.near is not None:
                mark, absent = plan.near.mark(), plan.near.take(ids, rows)
            if absent is None or len(absent) == len(ids):
                absent = np.arange(len(ids))
                keys += [plan.prefix + i for i in ids]
            else:
                keys += [plan.prefix + ids[i] for i in absent.tolist()]
            views.append(_ViewDraft(plan, rows, absent, mark))
        return Draft(ids, block, views, keys)

    def read(
        self,
        draft: Draft,
        rows: Sequence[bytes | None] | FeatureStatus,
        overrides: Sequence[Override],
        now_s: float,
        lost: NDArray[np.uint8] | None = None,
    ) -> EntityRows:
        """Unpack the rows of the draft's keys, age them, lay request-time fields over them, fill gaps.

        `lost` has, for each key, the status of a row that the store did not give, and 0 of the others; a
        status in place of rows is that of all of them.
        """
        if not self.views:  # the schema knows no such entity, so nothing is read and nothing is missing
            none = np.zeros(len(draft.ids), np.int64)
            return EntityRows(draft.block, none, np.zeros(0, np.uint8), {}, 0, 0, 0, 0, 0)
        if isinstance(rows, FeatureStatus):
            lost = np.full(len(draft.keys), rows, np.uint8)
            rows = [None] * len(draft.keys)
        by_view: dict[str, NDArray[np.uint8]] = {}
        nowhere = np.zeros(len(draft.ids), np.bool_)
        defaulted = not_given = stale = unreadable = nowhere
        done = 0
        for of_view in draft.views:
            view, absent = of_view.plan.view, of_view.absent
            these = slice(done, done + len(absent))
            done += len(absent)
            statuses = np.zeros(len(draft.ids), np.uint8)
            if len(absent):
                of_lost = None if lost is None else lost[these]
                statuses[absent] = self._complete(of_view, draft.ids, rows[these], of_lost)
            if view.max_age_s is not None:
                self._age(of_view, view.max_age_s, statuses, now_s)
            by_view[view.name] = statuses
            if statuses.any():
                near = statuses == FeatureStatus.STALE_L1
                missing = (statuses != FeatureStatus.PRESENT) & ~near
                if view.on_stale is OnStale.USE:
                    missing &= statuses != FeatureStatus.OUTSIDE_MAX_AGE
                if missing.any():
                    self._put_ids(of_view.plan, draft, np.flatnonzero(missing))
                read = _rests_on_row(view, overrides, len(draft.ids))
                defaulted, stale = defaulted | (missing & read), stale | (near & read)
                if lost is not None:
                    not_given = not_given | (np.isin(statuses, _NOT_GIVEN) & read)
                unreadable = unreadable | ((statuses >= FeatureStatus.CORRUPT) & read)
        stamps = self._stamps(draft, by_view)
        for given in overrides:
            given.apply(draft.block)
            stamps[given.rows] = 0
        ids_out_of_range = self._bring_into_range(draft.block)
        return EntityRows(
            block=self.encoder.fill_defaults(draft.block),
            stamps=stamps,
            worst=reduce(np.maximum, by_view.values()),
            by_view=by_view,
            defaulted=0 if defaulted is nowhere else int(defaulted.sum()),
            lost=0 if not_given is nowhere else int(not_given.sum()),
            stale=0 if stale is nowhere else int(stale.sum()),
            unreadable=0 if unreadable is nowhere else int(unreadable.sum()),
            ids_out_of_range=ids_out_of_range,
        )

    def _stamps(self, draft: Draft, by_view: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.int64]:
        """Stamps of the rows that are what the near cache keeps; too old a one may be a default row."""
        if len(draft.views) > 1:
            return np.zeros(len(draft.ids), np.int64)
        (of_view,) = draft.views
        kept = by_view[of_view.plan.view.name] == FeatureStatus.PRESENT
        return of_view.rows.stamps if kept.all() else of_view.rows.stamps * kept

    def _complete(
        self,
        draft: _ViewDraft,
        ids: Sequence[str],
        rows: Sequence[bytes | None],
        lost: NDArray[np.uint8] | None,
    ) -> NDArray[np.uint8]:
        """Put in the rows that were absent -> their statuses; what is whole is near at hand from now on."""
        plan, absent, every = draft.plan, draft.absent, len(draft.absent) == len(ids)
        ids = ids if every else [ids[i] for i in absent.tolist()]
        # The rows themselves where all are absent, else copies of some of them.
        found = draft.rows if every else draft.rows.at(absent)
        statuses = plan.rows.unpack(rows, entity_hashes(plan.view, ids), found.block, found.times_ms)
        if plan.near is not None:
            if lost is not None and lost.any():
                statuses = np.where(lost, lost, statuses)
                _stand_in(plan.near, ids, found, statuses, np.flatnonzero(lost))
            found.stamps[:] = _kept(plan.near, draft.mark, ids, found, statuses)
        elif lost is not None:
            statuses = np.where(lost, lost, statuses)
        if not every:
            draft.rows.put(absent, found)
        return statuses

    def _age(self, draft: _ViewDraft, max_age_s: float, statuses: NDArray[np.uint8], now_s: float) -> None:
        """Mark rows that are too old; those of a view that wants none are taken out again."""
        times_ms, plan = draft.rows.times_ms, draft.plan
        # A row from the future beyond the clocks' skew has a wrong time, so its age is not known either.
        oldest_ms, newest_ms = 1000 * (now_s - max_age_s), 1000 * (now_s + self._skew_s)
        if times_ms.min() >= oldest_ms and times_ms.max() <= newest_ms:
            return
        stale = (times_ms < oldest_ms) | (times_ms > newest_ms)
        statuses[stale] = FeatureStatus.OUTSIDE_MAX_AGE
        if plan.view.on_stale is OnStale.DEFAULT:
            draft.rows.block.ids[stale] = self._empty.ids[:, plan.ids]
            draft.rows.block.values[stale] = self._empty.values[:, plan.values]

    def _put_ids(self, plan: _ViewPlan, draft: Draft, rows: NDArray[np.intp]) -> None:
        """Fill the fields that read the id where there is no row to have them from."""
        ids = [draft.ids[row] for row in rows.tolist()]
        for at in plan.id_fields:
            encode_ids(self.encoder, at, ids, rows.tolist()).apply(draft.block)

    def _bring_into_range(self, block: Block) -> int:
        """Turn ids beyond their table into `unknown`: the CPU would raise, CUDA would read anything."""
        beyond = block.ids.view(np.uint32) >= self._cardinalities
        if not beyond.any():
            return 0
        block.ids[beyond] = UNKNOWN
        return int(beyond.sum())


def _rests_on_row(view: FeatureView, overrides: Sequence[Override], n: int) -> NDArray[np.bool_]:
    """Whether each of n entities needs the view's row: not where the request gives every field of it."""
    # A field that reads the key needs no row either.
    names = {field.name for field in view.fields if not view.reads_key(field)}
    given_n = np.zeros(n, np.int64)
    for override in overrides:
        if override.at.field.name in names:
            given_n[override.rows] += 1
    return given_n < len(names)


def _kept(
    near: NearCache, mark: int, ids: Sequence[str], rows: ViewRows, statuses: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Keep the rows that are whole -> the stamp of each, 0 of the others."""
    if not statuses.any():
        return near.keep(ids, rows, mark)
    whole = np.flatnonzero(statuses == FeatureStatus.PRESENT)
    stamps = np.zeros(len(ids), np.int64)
    stamps[whole] = near.keep([ids[i] for i in whole.tolist()], rows.at(whole), mark)
    return stamps


def _stand_in(
    near: NearCache,
    ids: Sequence[str],
    rows: ViewRows,
    statuses: NDArray[np.uint8],
    lost: NDArray[np.intp],
) -> None:
    """Put in what was known last of the lost rows."""
    known = rows.at(lost)
    unknown = near.take_stale([ids[i] for i in lost.tolist()], known)
    rows.put(lost, known)
    statuses[np.delete(lost, unknown)] = FeatureStatus.STALE_L1
