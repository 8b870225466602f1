"""From a vector a candidate to its logits: a plain feed-forward tower, or one a task."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from rankd_training.errors import SettingError

__all__ = ["TaskTowers", "Tower", "last_bias", "linear"]


def linear(in_width: int, out_width: int) -> nn.Linear:
    """Return a linear layer that starts Xavier-uniform with zero bias."""
    layer = nn.Linear(in_width, out_width)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def last_bias(network: nn.Module) -> Tensor:
    """Return the bias of a network's last linear layer."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1].bias


class Tower(nn.Module):
    """(Linear, ReLU, Dropout) for each hidden width. With no widths it passes its input on."""

    def __init__(self, in_width: int, hidden: Sequence[int], *, dropout: float) -> None:
        super().__init__()
        if min(hidden, default=1) < 1:
            raise SettingError(f"widths of a network: expected at least 1 each, got {list(hidden)}")
        widths = [in_width, *hidden]
        self.out_width = widths[-1]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x_NI: Tensor) -> Tensor:
        """[N, in_width] -> [N, out_width]."""
        out: Tensor = self.layers(x_NI)
        return out


class TaskTowers(nn.Module):
    """A tower and a logit a task, each over that task's own vector, which may be one for all."""

    def __init__(self, num_tasks: int, in_width: int, hidden: Sequence[int], *, dropout: float) -> None:
        super().__init__()
        towers = [Tower(in_width, hidden, dropout=dropout) for _ in range(num_tasks)]
        self.towers = nn.ModuleList(nn.Sequential(tower, linear(tower.out_width, 1)) for tower in towers)

    def forward(self, by_task: Sequence[Tensor]) -> Tensor:
        """[N, in_width] a task -> logits [N, T]."""
        return torch.cat([tower(x_NH) for tower, x_NH in zip(self.towers, by_task, strict=True)], dim=1)

    def output_biases(self) -> list[Tensor]:
        """Return the constant of each task's logit, one number each."""
        return [last_bias(tower) for tower in self.towers]
