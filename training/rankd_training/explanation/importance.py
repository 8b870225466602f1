"""How much a model leans on each field: what it loses when the field's values come from other rows.

Permutation importance (Breiman 2001, section 10), for any model of the registry: by field, the rise of the
log loss and the fall of the AUC, mean over some permutations. Says what this model uses, not what matters in
the world; where two fields tell the same, each may look dispensable.

Legend: N rows, K permutations, T tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from rankd_training.examples.inputs import RowInputs
from rankd_training.measures.metrics import Ranking
from rankd_training.models.registry import RankingModel
from rankd_training.runs.finished import score

__all__ = ["FieldImportance", "log_losses", "permutation_importance", "permutations"]


@dataclass(frozen=True, slots=True)
class FieldImportance:
    """One field; numbers a task, means over permutations with their standard deviations.

    Attributes:
        field: its name.
        auc_drop: how much AUC is lost; None where a class is missing.
        auc_drop_std: over permutations.
        loss_rise: how much log loss is added.
        loss_rise_std: over permutations.
    """

    field: str
    auc_drop: Sequence[float | None]
    auc_drop_std: Sequence[float | None]
    loss_rise: Sequence[float]
    loss_rise_std: Sequence[float]


def permutation_importance(
    model: RankingModel,
    inputs: RowInputs,
    label_NT: npt.NDArray[np.float32],
    *,
    shuffles: int = 5,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> list[FieldImportance]:
    """Measure every field -> by mean rise of the log loss, largest first.

    Args:
        model: in evaluation mode.
        inputs: rows that training did not see.
        label_NT: theirs.
        shuffles: K; every field meets the same ones.
        seed: of these.
        progress: told each field's name before it is measured.
    """
    num_rows = len(label_NT)
    order_KN = permutations(num_rows, shuffles, seed)
    whole_NT = score(model, inputs.features, num_rows)
    loss_T, auc_T = log_losses(label_NT, whole_NT), _aucs(label_NT, whole_NT)
    found = []
    for field in inputs.columns:
        progress(field)
        # One permutation after the other: all at once would hold K copies of large inputs.
        losses, drops = [], []
        for order_N in order_KN:
            score_NT = score(model, inputs.permuted([field], order_N[None]), num_rows)
            losses.append(log_losses(label_NT, score_NT) - loss_T)
            drops.append(auc_T - _aucs(label_NT, score_NT))
        rise_KT, drop_KT = np.stack(losses), np.stack(drops)
        found.append(
            FieldImportance(
                field,
                _listed(drop_KT.mean(0)),
                _listed(drop_KT.std(0)),
                rise_KT.mean(0).tolist(),
                rise_KT.std(0).tolist(),
            )
        )
    return sorted(found, key=lambda one: -float(np.mean(one.loss_rise)))


def permutations(num_rows: int, count: int, seed: int) -> torch.Tensor:
    """Draw permutations of the rows -> int64 [K, N]."""
    generator = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([generator.permutation(num_rows) for _ in range(count)]))


def log_losses(
    label_NT: npt.NDArray[np.float32], score_NT: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Mean log loss of each task -> [T]; probabilities are kept off 0 and 1 by float32's own step."""
    step = float(np.finfo(np.float32).eps)
    share_NT = np.clip(np.where(label_NT > 0, score_NT, 1 - score_NT).astype(np.float64), step, 1)
    return np.asarray(-np.log(share_NT).mean(0))


def _aucs(label_NT: npt.NDArray[np.float32], score_NT: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """AUC of each task -> [T], NaN where a class is missing."""
    aucs = [Ranking(label_NT[:, t], score_NT[:, t]).auc() for t in range(label_NT.shape[1])]
    return np.array([np.nan if auc is None else auc for auc in aucs])


def _listed(value_T: npt.NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in value_T]
