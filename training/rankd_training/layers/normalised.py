"""Towers whose layers are normalised over the batch: Linear, BatchNorm, ReLU, Dropout.

Legend: N candidates, H width of a layer, T tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from rankd_training.layers.heads import linear

__all__ = ["BatchNorm", "NormalisedHead"]


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation that takes its running statistics where a batch has one row.

    One row has no spread, and torch refuses it; the last batch of an epoch may well have one.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[N, H] or [N, H, W] -> the same shape."""
        if self.training and x.shape[0] == 1:
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


class NormalisedHead(nn.Module):
    """What follows a tower's first Linear: BatchNorm, ReLU, Dropout; more such layers; Linear to the logits.

    The first Linear stays with its owner, who may know how to split it by sides.
    """

    def __init__(self, hidden: Sequence[int], num_tasks: int, *, dropout: float) -> None:
        super().__init__()
        layers = _normalised(hidden[0], dropout)
        for before, after in pairwise(hidden):
            layers += [linear(before, after), *_normalised(after, dropout)]
        self.layers = nn.Sequential(*layers)
        self.out = linear(hidden[-1], num_tasks)

    def forward(self, first_NH: Tensor) -> Tensor:
        """Output of the first Linear -> logits [N, T]."""
        logits: Tensor = self.out(self.layers(first_NH))
        return logits


def _normalised(width: int, dropout: float) -> list[nn.Module]:
    return [BatchNorm(width), nn.ReLU(), nn.Dropout(dropout)]
