"""Squeeze-and-excitation over slots: each slot is scaled by a weight that all slots decide together."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rankd_training.layers.heads import linear

__all__ = ["SlotGate"]


class SlotGate(nn.Module):
    """a = sigmoid( LN( relu( mean(x) Wa + ba ) ) Wb + bb ); x is scaled by a, slot by slot.

    LN has neither scale nor shift; the inner width is half the number of slots, at least 1.
    """

    def __init__(self, num_slots: int) -> None:
        super().__init__()
        inner = max(1, num_slots // 2)
        self.squeeze = linear(num_slots, inner)
        self.norm = nn.LayerNorm(inner, elementwise_affine=False)
        self.excite = linear(inner, num_slots)

    def forward(self, x_NSO: Tensor) -> Tensor:
        """[N, S, O] -> [N, S, O]."""
        inner = self.norm(torch.relu(self.squeeze(x_NSO.mean(2))))
        return x_NSO * torch.sigmoid(self.excite(inner)).unsqueeze(2)
