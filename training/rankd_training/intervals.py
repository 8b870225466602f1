"""Is one model better than another, or were these users lucky? Paired bootstrap over users.

Rows of one user are alike, so whole users are drawn anew, not rows. Each side is one or more runs (seeds)
whose AUCs are averaged; both sides are judged on the same users every time.

Legend: N rows, U users, B resamples, M runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from rankd_training.metrics import user_auc

__all__ = ["Interval", "auc_difference", "user_auc_difference"]

Scores = Sequence[npt.NDArray[np.floating]]


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference with the middle 95 % of its resamples."""

    difference: float
    low: float
    high: float


def auc_difference(
    label_N: npt.NDArray[np.floating],
    ours: Scores,
    theirs: Scores,
    user_N: npt.NDArray[np.int64],
    *,
    resamples: int = 300,
    seed: int = 0,
) -> Interval:
    """AUC of ours minus theirs, over all rows."""

    def difference(weight_N: npt.NDArray[np.floating]) -> float:
        means = [
            np.mean([roc_auc_score(label_N, score_N, sample_weight=weight_N) for score_N in runs])
            for runs in (ours, theirs)
        ]
        return float(means[0] - means[1])

    users_U, code_N = np.unique(user_N, return_inverse=True)
    drawn = [difference(count_U[code_N]) for count_U in _counts(len(users_U), resamples, seed)]
    return _interval(difference(np.ones(len(label_N))), drawn)


def user_auc_difference(
    label_N: npt.NDArray[np.floating],
    ours: Scores,
    theirs: Scores,
    user_N: npt.NDArray[np.int64],
    *,
    resamples: int = 300,
    seed: int = 0,
) -> Interval:
    """AUC within users of ours minus theirs, weighted by rows, over users with both classes."""
    gaps, rows = [], []
    for user in np.unique(user_N):
        mine = user_N == user
        if 0 < label_N[mine].mean() < 1:
            means = [
                np.mean([user_auc(label_N[mine], score_N[mine], user_N[mine]) or 0.0 for score_N in runs])
                for runs in (ours, theirs)
            ]
            gaps.append(means[0] - means[1])
            rows.append(mine.sum())
    gap_U, rows_U = np.array(gaps), np.array(rows)
    drawn = [
        float(np.average(gap_U, weights=rows_U * count_U)) for count_U in _counts(len(gaps), resamples, seed)
    ]
    return _interval(float(np.average(gap_U, weights=rows_U)), drawn)


def _counts(num_users: int, resamples: int, seed: int) -> npt.NDArray[np.float64]:
    """How often each user is drawn -> [B, U]."""
    shares = np.full(num_users, 1 / num_users)
    return np.random.default_rng(seed).multinomial(num_users, shares, size=resamples).astype(np.float64)


def _interval(difference: float, drawn: Sequence[float]) -> Interval:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(difference, float(low), float(high))
