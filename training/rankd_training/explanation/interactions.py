"""Feature interaction scores (arXiv 2305.10181): what two fields are worth beyond what each is worth.

    phi_I(f) = mean over K permutations of [ loss of f with the fields I permuted ] - loss of f
    FIS(i, j) = phi_ij - phi_i - phi_j

The fields of a set move together, and every set meets the same permutations, which takes most of their noise
out of the difference. Below zero: either field alone already spoils what the two make together, as in a
product. Above zero: each can stand in for the other, and only without both is much lost.

Legend: N rows, K permutations, T tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import ROW
from rankd_training.examples.inputs import RowInputs
from rankd_training.explanation.importance import permutations
from rankd_training.explanation.masks import Masks

__all__ = ["SHUFFLES", "Effect", "Effects", "RowLoss", "log_loss_of"]

SHUFFLES = 30
BATCH_ROWS = 2048  # fits a core's cache; 8192 took 1.25 times as long
RowLoss = Callable[[Tensor, Tensor], Tensor]
"""Logits and labels [N, T] -> loss of each row [N]."""

Mask = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Effect:
    """A mean over permutations with its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, value_K: npt.NDArray[np.float64]) -> Effect:
        """Take the mean."""
        error = value_K.std(ddof=1) / np.sqrt(len(value_K)) if len(value_K) > 1 else 0.0
        return cls(float(value_K.mean()), float(error))


class Effects:
    """Effects of permuting fields on the loss of a model under masks.

    Args:
        model: in evaluation mode, between masks.
        masks: of `masked(model)`.
        inputs: N rows.
        label_NT: theirs.
        loss: of a row.
        shuffles: K.
        seed: of the permutations.
    """

    def __init__(
        self,
        model: nn.Module,
        masks: Masks,
        inputs: RowInputs,
        label_NT: Tensor,
        *,
        loss: RowLoss,
        shuffles: int = SHUFFLES,
        seed: int = 0,
    ) -> None:
        self._model, self._masks, self._inputs, self._loss = model, masks, inputs, loss
        self._order_KN = permutations(len(label_NT), shuffles, seed)
        self._label_NT = label_NT
        self._repeated_NT = label_NT.repeat(shuffles, 1)
        self._known: dict[tuple[object, ...], npt.NDArray[np.float64]] = {}

    def loss(self, mask: Mask) -> float:
        """Mean loss of the masked model."""
        return float(self._cached(mask, frozenset())[0])

    def phi(self, mask: Mask, *fields: str) -> Effect:
        """What is lost when these fields are permuted."""
        return Effect.of(self._phi_K(mask, *fields))

    def interaction(self, mask: Mask, one: str, other: str) -> Effect:
        """FIS of two fields."""
        both_K = self._phi_K(mask, one, other)
        return Effect.of(both_K - self._phi_K(mask, one) - self._phi_K(mask, other))

    def _phi_K(self, mask: Mask, *fields: str) -> npt.NDArray[np.float64]:
        return self._cached(mask, frozenset(fields)) - self._cached(mask, frozenset())

    def _cached(self, mask: Mask, fields: frozenset[str]) -> npt.NDArray[np.float64]:
        """Mean loss of each permutation [K]; of the rows as they are [1]."""
        key = (tuple(sorted((name, scale) for name, scale in mask.items() if scale != 1)), fields)
        if key not in self._known:
            self._masks.set(mask)
            if fields:
                features, label_NT = self._inputs.permuted(fields, self._order_KN), self._repeated_NT
            else:
                features, label_NT = dict(self._inputs.features), self._label_NT
            loss_N = self._row_losses(features, label_NT)
            count = len(self._order_KN) if fields else 1
            self._known[key] = loss_N.reshape(count, -1).mean(1, dtype=np.float64)
        return self._known[key]

    @torch.no_grad()
    def _row_losses(self, features: Mapping[str, Tensor], label_NT: Tensor) -> npt.NDArray[np.float32]:
        losses = []
        for start in range(0, len(label_NT), BATCH_ROWS):
            stop = min(start + BATCH_ROWS, len(label_NT))
            batch = {name: whole[start:stop] for name, whole in features.items()}
            batch[ROW] = torch.arange(stop - start)
            losses.append(self._loss(self._model(batch), label_NT[start:stop]))
        return np.asarray(torch.cat(losses).numpy())


def log_loss_of(schema: FeatureSchema, task: str | None = None) -> RowLoss:
    """Log loss of one task, or the mean over all with the schema's weights, as training has it."""
    weight_T = torch.tensor(
        [t.weight if task is None else float(t.name == task) for t in schema.tasks], dtype=torch.float32
    )
    weight_T = weight_T / weight_T.sum()

    def loss(logit_NT: Tensor, label_NT: Tensor) -> Tensor:
        loss_NT = functional.binary_cross_entropy_with_logits(logit_NT, label_NT, reduction="none")
        return loss_NT @ weight_T

    return loss
