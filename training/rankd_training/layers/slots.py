"""Linear maps across slots, the same for every number of a slot; the user's part once per user row.

Legend: R user rows, N candidates, S slots, E width of a slot, O slots that come out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["SlotMix"]


class SlotMix(nn.Module):
    """Y = W X over the slots of both sides, or of candidates alone; W [O, S] starts Xavier-uniform."""

    def __init__(self, num_user: int, num_item: int, num_out: int) -> None:
        super().__init__()
        self.num_user = num_user
        self.weight_OS = nn.Parameter(torch.empty(num_out, num_user + num_item))
        nn.init.xavier_uniform_(self.weight_OS)

    def forward(self, user_RSE: Tensor, item_NSE: Tensor, row_N: Tensor) -> Tensor:
        """-> [N, O, E]."""
        mixed_NOE = torch.matmul(self.weight_OS[:, self.num_user :], item_NSE)
        if not self.num_user:
            return mixed_NOE
        user_ROE = torch.matmul(self.weight_OS[:, : self.num_user], user_RSE)
        return user_ROE.index_select(0, row_N) + mixed_NOE
