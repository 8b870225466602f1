"""Curves of one task: ROC, calibration, and how scores are distributed by what happened.

Legend: N rows, P points, G bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_curve

__all__ = ["Calibration", "calibration", "densities", "roc"]

MOST_POINTS = 240
NUM_BINS = 15
Z_95 = 1.96


@dataclass(frozen=True, slots=True)
class Calibration:
    """Bins of equal numbers of rows: mean score, observed rate, and the rate's 95 % interval (Wilson)."""

    score_G: npt.NDArray[np.float64]
    rate_G: npt.NDArray[np.float64]
    low_G: npt.NDArray[np.float64]
    high_G: npt.NDArray[np.float64]


def roc(
    label_N: npt.NDArray[np.floating], score_N: npt.NDArray[np.floating]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """False and true positive rates, thinned to what a picture can show; None where a class is missing."""
    if not 0 < label_N.mean() < 1:
        return None
    false_P, true_P, _ = roc_curve(label_N, score_N)
    # Points evenly spaced along the curve's length, ends included.
    length_P = np.r_[0, np.cumsum(np.abs(np.diff(false_P)) + np.abs(np.diff(true_P)))]
    at = np.unique(np.searchsorted(length_P, np.linspace(0, length_P[-1], MOST_POINTS)))
    return false_P[at], true_P[at]


def calibration(
    label_N: npt.NDArray[np.floating], score_N: npt.NDArray[np.floating], num_bins: int = NUM_BINS
) -> Calibration:
    """What was promised beside what happened."""
    order_N = np.argsort(score_N, kind="stable")
    bins = np.array_split(order_N, min(num_bins, len(order_N)))
    rows_G = np.array([len(at) for at in bins], np.float64)
    score_G = np.array([score_N[at].mean(dtype=np.float64) for at in bins])
    rate_G = np.array([label_N[at].mean(dtype=np.float64) for at in bins])
    spread_G = Z_95**2 / rows_G
    middle_G = (rate_G + spread_G / 2) / (1 + spread_G)
    half_G = np.sqrt(spread_G * (rate_G * (1 - rate_G) + spread_G / 4)) / (1 + spread_G)
    return Calibration(score_G, rate_G, middle_G - half_G, middle_G + half_G)


def densities(
    label_N: npt.NDArray[np.floating], score_N: npt.NDArray[np.floating], num_bins: int = 40
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Edges over the scores' range, and the density of negative and of positive rows between them."""
    low, high = float(score_N.min()), float(score_N.max())
    margin = 0.5 / num_bins if high == low else 0.0
    edges = np.linspace(low - margin, high + margin, num_bins + 1)
    negative, positive = (_density(score_N[label_N == value], edges) for value in (0, 1))
    return edges, negative, positive


def _density(values: npt.NDArray[np.floating], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    counts, _ = np.histogram(values, edges)
    return np.asarray(counts / max(1, counts.sum()) / np.diff(edges))
