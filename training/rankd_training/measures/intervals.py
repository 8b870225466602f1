"""How sure are these numbers? Bootstrap of metrics, and of differences between models, over users.

Rows of one user are alike, so whole users are drawn anew, not rows; where each row is its own user that is
the same. A difference is paired: both sides are judged on the same users every time. Each side is one or
more runs (seeds) whose AUCs are averaged.

Legend: N rows, U users, B resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rankd_training.measures.metrics import Ranking, UserAUCs, calibration_error, evaluate, user_aucs

__all__ = [
    "RESAMPLES",
    "Estimate",
    "Interval",
    "Resampled",
    "auc_difference",
    "auc_estimate",
    "estimates",
    "in_words",
    "resampled_aucs",
    "user_auc_difference",
]

RESAMPLES = 300
FEW_USERS = FEW_ROWS = 10
Scores = Sequence[npt.NDArray[np.floating]]


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference with the middle 95 % of its resamples."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with the middle 95 % of its resamples.

    No ends where fewer than ten users, or for an AUC ten rows of a class, would make them look too sure.
    """

    value: float
    low: float | None
    high: float | None


def in_words(estimate: Estimate | None) -> tuple[str, str]:
    """The number and its interval as people read them."""
    if estimate is None:
        return "one class", ""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.4f}", "too few"
    return f"{estimate.value:.4f}", f"{estimate.low:.4f} to {estimate.high:.4f}"


@dataclass(frozen=True, slots=True)
class Resampled:
    """A number beside what it is in each resample that has both classes; those of one call share draws."""

    value: float
    drawn_B: npt.NDArray[np.float64]

    def minus(self, other: Resampled) -> Interval:
        """Compare, draw by draw."""
        return Interval(self.value - other.value, *_middle(self.drawn_B - other.drawn_B))


def resampled_aucs(
    label_N: npt.NDArray[np.floating],
    sides: Sequence[Scores],
    user_N: npt.NDArray[np.int64],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Resampled] | None:
    """AUC over all rows of each side, mean over its runs; None where there is one class only.

    All sides meet the same draws, and users are drawn once for all: with as many users as rows that is what
    takes the time.
    """
    if not 0 < label_N.mean() < 1:
        return None
    rankings = [[Ranking(label_N, score_N) for score_N in runs] for runs in sides]

    def means(weight_N: npt.NDArray[np.floating] | None) -> list[float]:
        """Of each side; NaN where a draw has one class only, which says nothing of either side."""
        found = [[one.auc(weight_N) for one in runs] for runs in rankings]
        return [float(np.mean([np.nan if auc is None else auc for auc in aucs])) for aucs in found]

    users_U, code_N = np.unique(user_N, return_inverse=True)
    every = np.array([means(count_U[code_N]) for count_U in _counts(len(users_U), resamples, seed)])
    drawn = every[np.isfinite(every).all(axis=1)]
    values = means(None)
    drawn = drawn if len(drawn) else np.array([values])
    return [Resampled(value, drawn_B) for value, drawn_B in zip(values, drawn.T, strict=True)]


def auc_difference(
    label_N: npt.NDArray[np.floating],
    ours: Scores,
    theirs: Scores,
    user_N: npt.NDArray[np.int64],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """AUC of ours minus theirs, over all rows; None where there is one class only."""
    found = resampled_aucs(label_N, (ours, theirs), user_N, resamples=resamples, seed=seed)
    return found[0].minus(found[1]) if found else None


def user_auc_difference(
    label_N: npt.NDArray[np.floating],
    ours: Scores,
    theirs: Scores,
    user_N: npt.NDArray[np.int64],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """AUC within users of ours minus theirs, weighted by rows; None where no user has both classes."""
    sides = [[user_aucs(label_N, score_N, user_N) for score_N in runs] for runs in (ours, theirs)]
    rows_U = sides[0][0].rows_U
    if not len(rows_U):
        return None
    gap_U = np.mean([found.auc_U for found in sides[0]], axis=0) - np.mean(
        [found.auc_U for found in sides[1]], axis=0
    )
    drawn = _weighted_means(gap_U, rows_U, resamples, seed)
    return Interval(float(np.average(gap_U, weights=rows_U)), *_middle(drawn))


def auc_estimate(
    label_N: npt.NDArray[np.floating],
    score_N: npt.NDArray[np.floating],
    user_N: npt.NDArray[np.int64],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate | None:
    """AUC over all rows with its interval; None where there is one class only."""
    ranking = Ranking(label_N, score_N)
    whole = ranking.auc()
    if whole is None:
        return None
    users_U, code_N = np.unique(user_N, return_inverse=True)
    positives = int(label_N.sum())
    if len(users_U) < FEW_USERS or min(positives, len(label_N) - positives) < FEW_ROWS:
        return Estimate(whole, None, None)
    drawn = [ranking.auc(count_U[code_N]) for count_U in _counts(len(users_U), resamples, seed)]
    return Estimate(whole, *_middle([auc for auc in drawn if auc is not None] or [whole]))


def estimates(
    label_N: npt.NDArray[np.floating],
    score_N: npt.NDArray[np.floating],
    user_N: npt.NDArray[np.int64],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Estimate | None]:
    """The metrics of `metrics.evaluate` with their intervals: auc, user_auc, log_loss, calibration_error.

    An AUC is None where a class is missing. The calibration error's interval is the basic one, twice the
    value minus the resamples' percentiles, and widened to hold the value: drawing anew adds noise, which this
    measure only ever adds up.
    """
    whole = evaluate(label_N, score_N, user_N)
    users_U, code_N = np.unique(user_N, return_inverse=True)
    loss = Estimate(whole.log_loss, None, None)
    error = Estimate(whole.calibration_error, None, None)
    if len(users_U) >= FEW_USERS:
        share_N = np.where(label_N > 0, score_N, 1 - score_N).astype(np.float64)
        loss_N = -np.log(np.clip(share_N, np.finfo(np.float64).eps, 1))
        losses, errors = [], []
        for count_U in _counts(len(users_U), resamples, seed):
            losses.append(float(np.average(loss_N, weights=count_U[code_N])))
            errors.append(calibration_error(label_N, score_N, weight_N=count_U[code_N]))
        low, high = _middle(errors)
        loss = Estimate(whole.log_loss, *_middle(losses))
        error = Estimate(
            whole.calibration_error,
            min(whole.calibration_error, max(0.0, 2 * whole.calibration_error - high)),
            max(whole.calibration_error, 2 * whole.calibration_error - low),
        )
    return {
        "auc": auc_estimate(label_N, score_N, user_N, resamples=resamples, seed=seed),
        "user_auc": _user_auc_estimate(user_aucs(label_N, score_N, user_N), resamples, seed),
        "log_loss": loss,
        "calibration_error": error,
    }


def _user_auc_estimate(found: UserAUCs, resamples: int, seed: int) -> Estimate | None:
    if not len(found.auc_U):
        return None
    whole = float(np.average(found.auc_U, weights=found.rows_U))
    if len(found.auc_U) < FEW_USERS:
        return Estimate(whole, None, None)
    return Estimate(whole, *_middle(_weighted_means(found.auc_U, found.rows_U, resamples, seed)))


def _weighted_means(
    value_U: npt.NDArray[np.float64], rows_U: npt.NDArray[np.int64], resamples: int, seed: int
) -> list[float]:
    """Mean over users, weighted by their rows, of each resample."""
    return [
        float(np.average(value_U, weights=rows_U * count_U))
        for count_U in _counts(len(value_U), resamples, seed)
    ]


def _counts(num_users: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.float64]]:
    """How often each user is drawn -> [U], one resample after the other: all at once can be gigabytes."""
    generator, shares = np.random.default_rng(seed), np.full(num_users, 1 / num_users)
    for _ in range(resamples):
        yield generator.multinomial(num_users, shares).astype(np.float64)


def _middle(drawn: Sequence[float] | npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)
