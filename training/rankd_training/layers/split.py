"""Linear algebra over [user side, item side] in which the user's part is computed once per user row.

Exact, because a linear layer over a concatenation is the sum of one layer a part. At serving R is 1 and N
is hundreds of candidates, so the user's columns cost next to nothing.

A table without users has candidates only: nothing is gathered then, and the weights are the item's alone.

Legend: R user rows, N candidates, I inputs of the user's or item's side, O outputs, S slots, E their width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["SplitLinear", "flat", "join_sides"]


class SplitLinear(nn.Module):
    """y = [user, item] W + b; W [I_user + I_item, O] starts Xavier-uniform, b at zero."""

    def __init__(self, user_width: int, item_width: int, out_width: int, *, bias: bool = True) -> None:
        super().__init__()
        self.user_width = user_width
        self.weight_IO = nn.Parameter(torch.empty(user_width + item_width, out_width))
        self.bias_O = nn.Parameter(torch.zeros(out_width)) if bias else None
        nn.init.xavier_uniform_(self.weight_IO)

    def forward(self, user_RI: Tensor, item_NI: Tensor, row_N: Tensor) -> Tensor:
        """-> [N, O]; `row_N` says which user row a candidate belongs to."""
        if not self.user_width:  # a table without users
            item_NO = torch.matmul(item_NI, self.weight_IO)
            return item_NO if self.bias_O is None else item_NO + self.bias_O
        user_RO = torch.matmul(user_RI, self.weight_IO[: self.user_width])
        if self.bias_O is not None:
            user_RO = user_RO + self.bias_O
        return user_RO.index_select(0, row_N) + torch.matmul(item_NI, self.weight_IO[self.user_width :])


def join_sides(user_RSE: Tensor, item_NSE: Tensor, row_N: Tensor) -> Tensor:
    """Slots of both sides for every candidate -> [N, Su + Si, E]."""
    if not user_RSE.shape[1]:  # a table without users
        return item_NSE
    return torch.cat([user_RSE.index_select(0, row_N), item_NSE], dim=1)


def flat(slots_RSE: Tensor) -> Tensor:
    """Slots side by side -> [R, S E]; a side without slots is R rows of nothing."""
    _, num_slots, width = slots_RSE.shape
    return slots_RSE.reshape(-1, num_slots * width) if num_slots else slots_RSE.flatten(1)
