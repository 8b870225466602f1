"""Rows near at hand: the item rows that were read lately, decoded, by id, in columns.

Hundreds of rows are found by one pass over a dictionary and taken by one step of numpy; nothing of them is
read, checked or decoded again. A row is answered as fresh only while the server tells us of every change
(`trust`, `confirm`) and until its time is up. Without that word nothing is fresh, but what was known last
can still stand in for a store that does not answer (`take_stale`). Space is bounded; CLOCK makes room, a
whole request's rows at a time.

Every row that is kept gets a stamp, a number above 0 that is used once: what was computed of a row can be
known by it (`inference/item_parts.py`), and is nobody's when the row is another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from rankd_contract.encoding import Block
from rankd_service.deadline import Clock
from rankd_service.features.view_rows import ViewRows

__all__ = ["MOST_CHANGES", "NearCache", "NearLimits"]

_NOWHERE = -1
_ID_BYTES = 200  # a short id, its place in the dictionary, and the columns that are not the row's own
_SPREAD = 0.1  # of the time to live, so that rows read together do not all run out together
MOST_CHANGES = 16_384


@dataclass(frozen=True, slots=True)
class NearLimits:
    """How much is kept a view (0: nothing), how long it is fresh, how long it may stand in afterwards.

    `word_s`: how old the store's word may be that every change before it was told.
    """

    bytes_a_view: int
    ttl_s: float
    stale_s: float
    word_s: float


class NearCache:
    """Rows of one view. `num_ids` and `num_values` are the view's; times are the clock's monotonic seconds.

    Whoever reads rows in order to keep them takes `mark()` before the read: a row that changed in between is
    then not kept.
    """

    def __init__(self, num_ids: int, num_values: int, limits: NearLimits, clock: Clock) -> None:
        """Reserve address space for all rows; memory is taken as they come."""
        self._limits, self._clock = limits, clock
        self._capacity = limits.bytes_a_view // (4 * (num_ids + num_values) + _ID_BYTES)
        places = self._capacity + 1  # the last one is nobody's: it is where `_NOWHERE` points
        block = Block(np.zeros((places, num_ids), np.int32), np.zeros((places, num_values), np.float32))
        self._rows = ViewRows(block, np.zeros(places, np.int64), np.zeros(places, np.int64))
        self._stamped = 0
        self._expires_s = np.zeros(places)
        self._expires_s[_NOWHERE] = -np.inf
        self._used = np.zeros(places, np.bool_)
        self._names = np.full(places, None, np.object_)
        self._places: dict[str, int] = {}
        self._hand = 0
        self._trusted, self._confirmed_s = False, -np.inf
        self._changes = self._complete_since = 0
        self._changed: dict[str, int] = {}
        self._random = np.random.default_rng()
        self.hits = self.misses = 0

    def __len__(self) -> int:
        """Return how many rows are kept."""
        return len(self._places)

    def mark(self) -> int:
        """Return the moment from which on changes matter to a read that begins now."""
        return self._changes

    def take(self, ids: Sequence[str], out: ViewRows) -> NDArray[np.intp]:
        """Copy the fresh rows of n ids into `out` -> the positions of the others, in order."""
        now_s = self._clock.monotonic_s()
        if not self._trusted or not self._places or now_s - self._confirmed_s > self._limits.word_s:
            absent = np.arange(len(ids))
        else:
            absent = self._take(ids, out, now_s)
        self.misses += len(absent)
        self.hits += len(ids) - len(absent)
        return absent

    def take_stale(self, ids: Sequence[str], out: ViewRows) -> NDArray[np.intp]:
        """Do the same with what was known last, however old the word of it, up to `stale_s`."""
        if not self._places:
            return np.arange(len(ids))
        return self._take(ids, out, self._clock.monotonic_s() - self._limits.stale_s)

    def _take(self, ids: Sequence[str], out: ViewRows, oldest_s: float) -> NDArray[np.intp]:
        at = np.fromiter(map(self._places.get, ids, repeat(_NOWHERE)), np.intp, len(ids))
        here = self._expires_s[at] > oldest_s
        self._used[at] = True
        if here.all():  # as nearly always
            out.put(slice(None), self._rows.at(at))
            return np.zeros(0, np.intp)
        out.put(np.flatnonzero(here), self._rows.at(at[here]))
        return np.flatnonzero(~here)

    def keep(self, ids: Sequence[str], rows: ViewRows, mark: int) -> NDArray[np.int64]:
        """Keep the rows of different ids, read since `mark`; those that have changed since are left out.

        Returns the stamp of each, 0 of those that are not kept. Stamps that the rows had are not looked at.
        """
        stamps = np.zeros(len(ids), np.int64)
        if not self._trusted or mark < self._complete_since or not self._capacity:
            return stamps
        chosen = np.arange(len(ids))
        if mark != self._changes:
            chosen = np.array(
                [i for i, name in enumerate(ids) if self._changed.get(name, mark) <= mark], np.intp
            )
        chosen = chosen[: self._capacity]
        n = len(chosen)
        every = n == len(ids)
        names = ids if every else [ids[i] for i in chosen.tolist()]
        at = np.fromiter(map(self._places.get, names, repeat(_NOWHERE)), np.intp, n)
        new = np.flatnonzero(at == _NOWHERE)
        if len(new):
            at[new] = self._vacated(len(new), at)
            news = [names[i] for i in new.tolist()]
            self._names[at[new]] = news
            self._places.update(zip(news, at[new].tolist(), strict=True))
        stamps[chosen] = self._stamped + 1 + np.arange(n)
        self._stamped += n
        stamped = ViewRows(rows.block, rows.times_ms, stamps)
        self._rows.put(at, stamped if every else stamped.at(chosen))
        self._expires_s[at] = self._clock.monotonic_s() + self._limits.ttl_s * (
            1 - _SPREAD * self._random.random(n)
        )
        return stamps

    def _vacated(self, n: int, spared: NDArray[np.intp]) -> NDArray[np.intp]:
        """Make room for n rows: places not used since the hand passed them last, but for `spared` ones."""
        found: list[NDArray[np.intp]] = []
        self._used[spared] = True
        while n:
            window = np.arange(self._hand, self._hand + n) % self._capacity
            self._hand = (self._hand + n) % self._capacity
            idle = window[~self._used[window]]
            self._used[window] = False
            # So that a second round, which finds these bits cleared, takes neither kind once more.
            self._used[idle], self._used[spared] = True, True
            found.append(idle)
            n -= len(idle)
        places = np.concatenate(found)
        self._used[places] = False
        deque(map(self._places.pop, self._names[places].tolist(), repeat(None)), maxlen=0)
        return places

    def drop(self, ids: Iterable[str]) -> None:
        """Forget rows that changed, also those on their way here."""
        self._changes += 1
        for name in ids:
            self._changed[name] = self._changes
            at = self._places.pop(name, None)
            if at is not None:
                self._names[at], self._used[at] = None, False
        if len(self._changed) > MOST_CHANGES:
            self._changed.clear()
            self._complete_since = self._changes

    def clear(self) -> None:
        """Forget everything, also what is on its way here."""
        self._changes += 1
        self._complete_since = self._changes
        self._places.clear()
        self._changed.clear()
        self._names[:] = None
        self._used[:] = False

    def trust(self) -> None:
        """Begin anew: from now on every change is told. Rows of before may still stand in for lost ones."""
        self._changes += 1
        self._complete_since = self._changes
        self._changed.clear()
        now_s = self._clock.monotonic_s()
        np.minimum(self._expires_s, now_s, out=self._expires_s)
        self._trusted = True
        self.confirm(now_s)

    def confirm(self, when_s: float) -> None:
        """Note that every change up to then has been told."""
        self._confirmed_s = when_s

    def distrust(self) -> None:
        """Answer nothing as fresh any more: changes may have been missed."""
        self._trusted = False
