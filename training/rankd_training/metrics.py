"""How good scores are: AUC over all rows, AUC within users, log loss, calibration.

AUC is None where a label has one class only; nothing here is NaN, so the numbers survive JSON.

Legend: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.metrics import log_loss, roc_auc_score

__all__ = ["TaskMetrics", "calibration_error", "evaluate", "overall", "user_auc"]


NUM_BINS = 20


@dataclass(frozen=True, slots=True)
class TaskMetrics:
    """One task on one split."""

    rows: int
    base_rate: float
    auc: float | None
    user_auc: float | None
    log_loss: float
    calibration_error: float


def evaluate(
    label_N: npt.NDArray[np.floating], score_N: npt.NDArray[np.floating], user_N: npt.NDArray[np.int64]
) -> TaskMetrics:
    """Judge probabilities against 0/1 labels.

    Args:
        label_N: 0 or 1.
        score_N: probabilities.
        user_N: whose row it is, as any integer code; for the AUC within users.
    """
    both = 0 < label_N.mean() < 1
    return TaskMetrics(
        rows=len(label_N),
        base_rate=float(label_N.mean()),
        auc=float(roc_auc_score(label_N, score_N)) if both else None,
        user_auc=user_auc(label_N, score_N, user_N),
        log_loss=float(log_loss(label_N, score_N.astype(np.float64), labels=[0, 1])),
        calibration_error=calibration_error(label_N, score_N),
    )


def overall(by_task: Mapping[str, TaskMetrics], of: Literal["auc", "user_auc", "log_loss"]) -> float:
    """Return one number, higher is better: the mean over tasks; an AUC that does not exist counts as 0."""
    found = [getattr(metrics, of) or 0.0 for metrics in by_task.values()]
    mean = float(np.mean(found))
    return -mean if of == "log_loss" else mean


def user_auc(
    label_N: npt.NDArray[np.floating], score_N: npt.NDArray[np.floating], user_N: npt.NDArray[np.int64]
) -> float | None:
    """Mean of the users' AUCs, weighted by their rows, over users with both classes; None if there is none.

    Ties count half, as in the AUC over all rows.
    """
    order_N = np.lexsort((score_N, user_N))
    label_N, score_N, user_N = label_N[order_N], score_N[order_N], user_N[order_N]
    # Rows of one user with one score share their mean rank.
    tie_N = np.cumsum(np.r_[True, (np.diff(user_N) != 0) | (np.diff(score_N) != 0)]) - 1
    rank_N = (np.bincount(tie_N, np.arange(1.0, len(tie_N) + 1)) / np.bincount(tie_N))[tie_N]
    _, start_U, code_N, rows_U = np.unique(user_N, return_index=True, return_inverse=True, return_counts=True)
    positives_U = np.bincount(code_N, label_N)
    negatives_U = rows_U - positives_U
    # Ranks run over all rows; a user's own start where the user does.
    rank_sum_U = np.bincount(code_N, label_N * (rank_N - start_U[code_N]))
    both_U = (positives_U > 0) & (negatives_U > 0)
    if not both_U.any():
        return None
    above_U = (rank_sum_U - positives_U * (positives_U + 1) / 2)[both_U]
    auc_U = above_U / (positives_U * negatives_U)[both_U]
    return float(np.average(auc_U, weights=rows_U[both_U]))


def calibration_error(
    label_N: npt.NDArray[np.floating], score_N: npt.NDArray[np.floating], num_bins: int = NUM_BINS
) -> float:
    """Expected calibration error over bins of equal numbers of rows: mean |observed rate - mean score|."""
    order_N = np.argsort(score_N, kind="stable")
    gap_N = (label_N.astype(np.float64) - score_N)[order_N]
    bins = np.array_split(gap_N, min(num_bins, len(gap_N)))
    return float(sum(abs(gaps.sum()) for gaps in bins) / len(gap_N))
