"""How good scores are: AUC over all rows, AUC within users, log loss, calibration.

AUC is None where a label has one class only; nothing here is NaN, so the numbers survive JSON.

Legend: N rows, U users, G groups of rows with one score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.metrics import log_loss

__all__ = [
    "Ranking",
    "TaskMetrics",
    "UserAUCs",
    "calibration_error",
    "evaluate",
    "overall",
    "user_auc",
    "user_aucs",
]

NUM_BINS, FEWEST_IN_BIN = 20, 100


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
    return TaskMetrics(
        rows=len(label_N),
        base_rate=float(label_N.mean()),
        auc=Ranking(label_N, score_N).auc(),
        user_auc=user_auc(label_N, score_N, user_N),
        log_loss=float(log_loss(label_N, score_N.astype(np.float64), labels=[0, 1])),
        calibration_error=calibration_error(label_N, score_N),
    )


def overall(by_task: Mapping[str, TaskMetrics], of: Literal["auc", "user_auc", "log_loss"]) -> float:
    """Return one number, higher is better: the mean over tasks; an AUC that does not exist counts as 0."""
    found = [getattr(metrics, of) or 0.0 for metrics in by_task.values()]
    mean = float(np.mean(found))
    return -mean if of == "log_loss" else mean


class Ranking:
    """Rows in the order of their scores, sorted once, so that an AUC under other weights costs one pass.

    Args:
        label_N: 0 or 1.
        score_N: higher means sooner.
    """

    def __init__(self, label_N: npt.NDArray[np.floating], score_N: npt.NDArray[np.floating]) -> None:
        self._order_N = np.argsort(score_N, kind="stable")
        self._positive_N = label_N[self._order_N].astype(np.float64)
        self._group_N = _group_of(score_N[self._order_N])

    def auc(self, weight_N: npt.NDArray[np.floating] | None = None) -> float | None:
        """Chance that a positive row is above a negative one, ties half; None where a class has no weight.

        Args:
            weight_N: how much each row counts, such as how often it was drawn; by default once.
        """
        weight_N = np.ones(len(self._order_N)) if weight_N is None else weight_N[self._order_N]
        positive_G = np.bincount(self._group_N, weight_N * self._positive_N)
        negative_G = np.bincount(self._group_N, weight_N * (1 - self._positive_N))
        pairs = positive_G.sum() * negative_G.sum()
        if not pairs > 0:
            return None
        return float(positive_G @ (np.cumsum(negative_G) - negative_G / 2) / pairs)


@dataclass(frozen=True, slots=True)
class UserAUCs:
    """The AUC of each user who has both classes.

    Attributes:
        user_U: their codes, ascending.
        auc_U: ties count half, as in the AUC over all rows.
        rows_U: how many rows each has.
    """

    user_U: npt.NDArray[np.int64]
    auc_U: npt.NDArray[np.float64]
    rows_U: npt.NDArray[np.int64]


def user_aucs(
    label_N: npt.NDArray[np.floating], score_N: npt.NDArray[np.floating], user_N: npt.NDArray[np.int64]
) -> UserAUCs:
    """Each user's own AUC, in one pass over all rows."""
    order_N = np.lexsort((score_N, user_N))
    label_N, score_N, user_N = label_N[order_N], score_N[order_N], user_N[order_N]
    # Rows of one user with one score share their mean rank.
    tie_N = np.cumsum(np.r_[True, (np.diff(user_N) != 0) | (np.diff(score_N) != 0)]) - 1
    rank_N = (np.bincount(tie_N, np.arange(1.0, len(tie_N) + 1)) / np.bincount(tie_N))[tie_N]
    user_U, start_U, code_N, rows_U = np.unique(
        user_N, return_index=True, return_inverse=True, return_counts=True
    )
    positives_U = np.bincount(code_N, label_N)
    negatives_U = rows_U - positives_U
    # Ranks run over all rows; a user's own start where the user does.
    rank_sum_U = np.bincount(code_N, label_N * (rank_N - start_U[code_N]))
    both_U = (positives_U > 0) & (negatives_U > 0)
    above_U = (rank_sum_U - positives_U * (positives_U + 1) / 2)[both_U]
    return UserAUCs(user_U[both_U], above_U / (positives_U * negatives_U)[both_U], rows_U[both_U])


def user_auc(
    label_N: npt.NDArray[np.floating], score_N: npt.NDArray[np.floating], user_N: npt.NDArray[np.int64]
) -> float | None:
    """Mean of the users' AUCs, weighted by rows, over users with both classes; None if there is none."""
    found = user_aucs(label_N, score_N, user_N)
    return float(np.average(found.auc_U, weights=found.rows_U)) if len(found.auc_U) else None


def calibration_error(
    label_N: npt.NDArray[np.floating],
    score_N: npt.NDArray[np.floating],
    num_bins: int = NUM_BINS,
    weight_N: npt.NDArray[np.floating] | None = None,
) -> float:
    """Expected calibration error over bins of equal numbers of rows: mean |observed rate - mean score|.

    Args:
        label_N: 0 or 1.
        score_N: probabilities.
        num_bins: at most; there are fewer where a bin would have fewer than a hundred rows, whose rate says
            little. The last bins are a row shorter where it does not come out even.
        weight_N: how much each row counts within its bin; bins stay as they are.
    """
    order_N = np.argsort(score_N, kind="stable")
    weight_N = np.ones(len(order_N)) if weight_N is None else weight_N[order_N]
    gap_N = weight_N * (label_N.astype(np.float64) - score_N)[order_N]
    bins = np.array_split(gap_N, min(num_bins, max(1, len(gap_N) // FEWEST_IN_BIN)))
    return float(sum(abs(gaps.sum()) for gaps in bins) / weight_N.sum())


def _group_of(sorted_N: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Number groups of equal neighbours from 0."""
    return np.cumsum(np.r_[True, np.diff(sorted_N) != 0]) - 1 if len(sorted_N) else np.zeros(0, np.int64)
