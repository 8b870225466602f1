"""Two ids -> one row of a table: the arithmetic that graphs repeat, so no feature store has to know of it.

A pair whose every combination fits its share of the table has a row a combination. Otherwise combination x
goes to row ((a x + b) mod p) mod m with the prime p = 2^31 - 1; a and b come from the hash of the pair's
name, and x is taken modulo p first. Nothing exceeds 63 bits, so torch, numpy and every runtime agree to the
last bit; the 64-bit hash of values needs unsigned shifts, which torch cannot export.
The vectors in tests/contract/golden/crosses.json are part of the format: trained tables depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankd_contract.hashing import salt

__all__ = ["PRIME", "HashedPair", "pair_row"]

PRIME = (1 << 31) - 1


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
        return salt(self.name) % (PRIME - 1) + 1

    @property
    def shift(self) -> int:
        """b, from 0 to p - 1."""
        return (salt(self.name) >> 32) % PRIME


def pair_row(pair: HashedPair, left_n: NDArray[np.int64], right_n: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row of each combination, from 0 to `num_rows` - 1; ids from 0 to `left_ids` - 1 and `right_ids` - 1."""
    x_n = left_n * pair.right_ids + right_n
    if not pair.hashed:
        return x_n
    return (pair.factor * (x_n % PRIME) + pair.shift) % PRIME % pair.num_rows
