"""Scores with what rests on an item alone computed once: kept by the stamp of the row it was computed from.

A row near at hand has a stamp that no other row ever has. What was computed of it lies at the stamp's place
in a ring, labelled with it, so that a row that changed, or was read anew, finds nothing of the old one, and
nothing has to be told of a change. Candidates without a stamp, or whose place another has taken since, are
computed as in any request. Space is fixed; memory is taken as it is filled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankd_contract.signature import SCORES
from rankd_service.inference.batch import Batch
from rankd_service.inference.session import GraphSession

__all__ = ["ItemParts", "Tally"]


@dataclass(slots=True)
class Tally:
    """Candidates whose part was found kept, and those whose part was computed, ever."""

    kept: int = 0
    computed: int = 0


class ItemParts:
    """A graph in two sessions, and the parts between them of items seen lately."""

    def __init__(self, item: GraphSession, rest: GraphSession, most_bytes: int) -> None:
        """Reserve address space for as many items as fit in so many bytes."""
        self._item, self._rest, self.tally = item, rest, Tally()
        self._given = [spec.name for spec in item.inputs]
        self._parts = [spec.name for spec in item.outputs]
        self._needed = {spec.name for spec in rest.inputs}
        shapes = [(tuple(int(d) for d in s.dims[1:]), np.dtype(s.dtype)) for s in item.outputs]
        item_bytes = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in shapes)
        self._places = max(1, most_bytes // (item_bytes + 8))
        self._tables: list[NDArray[Any]] = [np.zeros((self._places, *s), t) for s, t in shapes]
        self._labels = np.zeros(self._places, np.int64)

    def score(self, batch: Batch) -> NDArray[np.float32]:
        """-> the graph's scores float32 [N, T]."""
        tensors = {**batch.tensors, **dict(zip(self._parts, self._parts_of(batch), strict=True))}
        return self._rest.run((SCORES,), {name: tensors[name] for name in self._needed})[0]

    def _parts_of(self, batch: Batch) -> list[NDArray[Any]]:
        places = batch.stamps_N % self._places
        known = (self._labels[places] == batch.stamps_N) & (batch.stamps_N > 0)
        absent = np.flatnonzero(~known)
        self.tally.kept += len(batch) - len(absent)
        self.tally.computed += len(absent)
        if not len(absent):  # as nearly always
            return [np.take(table, places, axis=0) for table in self._tables]
        if len(absent) == len(batch):
            parts: list[NDArray[Any]] = self._compute(batch)
            self._keep(batch.stamps_N, places, parts)
            return parts
        computed = self._compute(batch, absent)
        parts = [np.take(table, places, axis=0) for table in self._tables]
        for part, fresh in zip(parts, computed, strict=True):
            part[absent] = fresh
        self._keep(batch.stamps_N[absent], places[absent], computed)
        return parts

    def _compute(self, batch: Batch, rows: NDArray[np.intp] | slice = slice(None)) -> list[NDArray[Any]]:
        return self._item.run(self._parts, {name: batch.tensors[name][rows] for name in self._given})

    def _keep(self, stamps: NDArray[np.int64], places: NDArray[np.int64], parts: list[NDArray[Any]]) -> None:
        stamped = np.flatnonzero(stamps)
        at = places[stamped]
        # Where two of them share a place the last one stays, in the labels as in the tables.
        self._labels[at] = stamps[stamped]
        for table, part in zip(self._tables, parts, strict=True):
            table[at] = part[stamped]
