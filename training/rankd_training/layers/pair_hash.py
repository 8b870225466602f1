"""Rows of hashed pairs, in the graph: the torch twin of `rankd_contract/pair_hash.py`.

Legend: N rows, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from rankd_contract.pair_hash import PRIME, HashedPair

__all__ = ["PairHash"]


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
        return self.within(left_NP, right_NP) + self.start_P

    def within(self, left_NP: Tensor, right_NP: Tensor) -> Tensor:
        """The same, counted from the start of each pair's share."""
        x_NP = left_NP * self.right_ids_P + right_NP
        if self.any_hashed:
            mixed_NP = (self.factor_P * (x_NP % PRIME) + self.shift_P) % PRIME % self.rows_P
            x_NP = torch.where(self.hashed_P, mixed_NP, x_NP)
        return x_NP
