"""Two ids -> one row of a table, in the graph: no feature store has to know of a cross.

A pair whose every combination fits its share of the table has a row a combination. Otherwise combination x
goes to row ((a x + b) mod p) mod m with the prime p = 2^31 - 1: a, b from the pair's name, x taken modulo p
first. Nothing exceeds 63 bits, so torch, numpy and every runtime agree to the last bit.

Legend: N rows, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rankd_contract.hashing import salt

__all__ = ["HashedPair", "PairHash", "pair_row"]

_PRIME = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class HashedPair:
    """A pair of fields: its name, how many ids each side has, and how many rows it may take."""

    name: str
    left_ids: int
    right_ids: int
    most_rows: int

    @property
    def num_rows(self) -> int:
        """Rows it takes."""
        return min(self.left_ids * self.right_ids, self.most_rows)

    @property
    def hashed(self) -> bool:
        """True where combinations have to share rows."""
        return self.left_ids * self.right_ids > self.most_rows

    @property
    def factor(self) -> int:
        """a, from 1 to p - 1."""
        return salt(self.name) % (_PRIME - 1) + 1

    @property
    def shift(self) -> int:
        """b, from 0 to p - 1."""
        return (salt(self.name) >> 32) % _PRIME


def pair_row(pair: HashedPair, left_n: NDArray[np.int64], right_n: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row of each combination within its pair's share: the plain twin of `PairHash`."""
    x_n = left_n * pair.right_ids + right_n
    if not pair.hashed:
        return x_n
    return (pair.factor * (x_n % _PRIME) + pair.shift) % _PRIME % pair.num_rows


class PairHash(nn.Module):
    """Rows of all pairs at once, each pair's share after the one before."""

    right_ids_P: Tensor
    factor_P: Tensor
    shift_P: Tensor
    rows_P: Tensor
    start_P: Tensor
    hashed_P: Tensor

    def __init__(self, pairs: Sequence[HashedPair]) -> None:
        super().__init__()
        sizes = [pair.num_rows for pair in pairs]
        self.num_rows = sum(sizes)
        self.any_hashed = any(pair.hashed for pair in pairs)
        starts = np.cumsum([0, *sizes[:-1]])
        for name, values in {
            "right_ids_P": [pair.right_ids for pair in pairs],
            "factor_P": [pair.factor for pair in pairs],
            "shift_P": [pair.shift for pair in pairs],
            "rows_P": sizes,
            "start_P": [int(start) for start in starts],
            "hashed_P": [pair.hashed for pair in pairs],
        }.items():
            self.register_buffer(name, torch.tensor(values), persistent=False)

    def forward(self, left_NP: Tensor, right_NP: Tensor) -> Tensor:
        """Ids of both sides, int64, each within its field's range -> rows of the table [N, P]."""
        x_NP = left_NP * self.right_ids_P + right_NP
        if self.any_hashed:
            mixed_NP = (self.factor_P * (x_NP % _PRIME) + self.shift_P) % _PRIME % self.rows_P
            x_NP = torch.where(self.hashed_P, mixed_NP, x_NP)
        return x_NP + self.start_P
