"""Several networks of one shape side by side, and gates that mix them.

All experts' layers are one batched product each, not one a network.

Legend: N candidates, I numbers in, n experts, H width of an expert's layer, T tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from rankd_training.errors import SettingError

__all__ = ["Experts", "mixed"]


class Experts(nn.Module):
    """What follows the experts' first Linear: ReLU, Dropout, then (Linear, ReLU, Dropout) a further width.

    The first Linear, of n H numbers for all experts together, stays with its owner, who may know how to
    split it by sides.

    Raises:
        SettingError: there is no expert, or no hidden width.
    """

    def __init__(self, num: int, hidden: Sequence[int], *, dropout: float) -> None:
        super().__init__()
        if num < 1 or not hidden:
            raise SettingError(f"{num} experts of {tuple(hidden)}: expected one or more of each")
        self.num, self.first_width, self.out_width = num, hidden[0], hidden[-1]
        self.dropout = nn.Dropout(dropout)
        self.weights = nn.ParameterList(torch.empty(num, a, b) for a, b in pairwise(hidden))
        self.biases = nn.ParameterList(torch.zeros(num, 1, b) for b in hidden[1:])
        for weight_nHH in self.weights:
            for matrix_HH in weight_nHH:
                nn.init.xavier_uniform_(matrix_HH)

    def forward(self, first_NX: Tensor) -> Tensor:
        """[N, n H] -> [N, n, H of the last layer]."""
        x_nNH = self._active(first_NX).reshape(-1, self.num, self.first_width).transpose(0, 1)
        for weight_nHH, bias_n1H in zip(self.weights, self.biases, strict=True):
            x_nNH = self._active(torch.matmul(x_nNH, weight_nHH) + bias_n1H)
        return x_nNH.transpose(0, 1)

    def _active(self, x: Tensor) -> Tensor:
        active: Tensor = self.dropout(torch.relu(x))
        return active


def mixed(gate_NGn: Tensor, expert_NnH: Tensor) -> Tensor:
    """Mix experts by the softmax of each gate's scores -> [N, gates, H]."""
    return torch.matmul(torch.softmax(gate_NGn, dim=2), expert_NnH)
