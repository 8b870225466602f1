"""Rows of examples as tensors, batch by batch: only what a batch needs is read, so they may be memory-mapped.

Legend: n chosen rows, N rows of a batch, T tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rankd_contract.signature import ROW, tensors
from rankd_training.examples.examples import Examples

__all__ = ["Batch", "Batches"]

EVALUATION_ROWS = 8192


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs by name (every row is its own user row), labels [N, T], and whose row each is [N]."""

    features: dict[str, Tensor]
    label_NT: Tensor
    group_N: Tensor


class Batches:
    """Cuts examples into batches."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples
        self._inputs = tensors(examples.blocks, np.empty(0, np.int64))
        del self._inputs[ROW]

    def read(self, chosen_N: Tensor) -> Batch:
        """Read some rows, in the order given."""
        index_N = chosen_N.numpy()
        features = {
            name: torch.from_numpy(np.asarray(whole.take(index_N, axis=0)))
            for name, whole in self._inputs.items()
        }
        features[ROW] = torch.arange(len(chosen_N))
        label_NT = torch.from_numpy(np.asarray(self.examples.label_nT.take(index_N, axis=0)))
        return Batch(features, label_NT, torch.from_numpy(np.asarray(self.examples.group_n.take(index_N))))

    def in_turn(self, chosen_n: Tensor, *, as_for: int = 0) -> Iterator[Batch]:
        """Read rows in their order, some thousands at once, then none, as often as for `as_for` rows."""
        pieces = torch.split(chosen_n, EVALUATION_ROWS)
        for chosen_N in pieces:
            yield self.read(chosen_N)
        for _ in range(len(pieces), -(-as_for // EVALUATION_ROWS)):
            yield self.read(chosen_n[:0])
