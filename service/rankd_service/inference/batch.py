"""What one run of a graph is given: tensors, and by what stamps the candidates' rows are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankd_contract.schema import Entity
from rankd_contract.signature import ROW, input_name

__all__ = ["Batch", "join"]

_OF_CANDIDATES = frozenset({ROW, *(input_name(Entity.ITEM, part) for part in ("ids", "values"))})


@dataclass(frozen=True, slots=True)
class Batch:
    """The graph's inputs by name, and each candidate's stamp int64 [N], 0 where it has none."""

    tensors: Mapping[str, NDArray[Any]]
    stamps_N: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of candidates N."""
        return len(self.stamps_N)

    def part(self, begin: int, end: int) -> Batch:
        """Return some candidates, one after the other, with all users' rows, which are one or few."""
        cut = {name: a[begin:end] if name in _OF_CANDIDATES else a for name, a in self.tensors.items()}
        return Batch(cut, self.stamps_N[begin:end])


def join(batches: Sequence[Batch]) -> Batch:
    """Lay batches of one model one after the other: `in_row` says which candidate is whose."""
    names = batches[0].tensors
    joined = {name: np.concatenate([b.tensors[name] for b in batches]) for name in names}
    of_users = [name for name in names if name not in _OF_CANDIDATES]
    if of_users:
        before, rows = 0, []
        for batch in batches:
            rows.append(batch.tensors[ROW] + before)
            before += len(batch.tensors[of_users[0]])
        joined[ROW] = np.concatenate(rows)
    return Batch(joined, np.concatenate([b.stamps_N for b in batches]))
