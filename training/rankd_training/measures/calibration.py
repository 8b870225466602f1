"""Curves that turn a model's scores into probabilities, fitted on validation rows with scikit-learn.

Legend: n rows, T tasks, B blocks of rows with one fitted value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from rankd_contract.calibration import Calibration, Curve, PiecewiseLinear, Platt, curve_to
from rankd_contract.errors import CorruptBundle
from rankd_training.errors import RunError
from rankd_training.measures.metrics import calibration_error

__all__ = ["FILE", "Calibrated", "fit", "isotonic", "platt", "read"]

FILE = "calibration.json"
MOST_POINTS = 256
# A model that orders validation rows worse than chance gets the flattest curve that still rises.
LEAST_SCALE = 1e-3


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Curves by task and what they do to the expected calibration error, by split and task."""

    method: str
    tasks: Mapping[str, Curve]
    error_before: Mapping[str, Mapping[str, float]]
    error_after: Mapping[str, Mapping[str, float]]

    def to_json(self) -> bytes:
        """Put it into the form that a run's folder keeps."""
        tree = {
            "method": self.method,
            "tasks": {task: curve_to(curve) for task, curve in self.tasks.items()},
            "error_before": self.error_before,
            "error_after": self.error_after,
        }
        return (json.dumps(tree, indent=2, allow_nan=False) + "\n").encode()


def fit(
    method: Literal["platt", "isotonic"],
    tasks: tuple[str, ...],
    by_split: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]],
) -> Calibrated:
    """Fit a curve a task on the rows of `valid`.

    Args:
        method: which.
        tasks: T names.
        by_split: scores [n, T] and 0/1 labels [n, T] of every split; both classes are in each task's `valid`.
    """
    score_nT, label_nT = by_split["valid"]
    fitted = platt if method == "platt" else isotonic
    curves = {task: fitted(score_nT[:, t], label_nT[:, t]) for t, task in enumerate(tasks)}
    apply = Calibration(tuple(curves.values()))
    before: dict[str, dict[str, float]] = {}
    after: dict[str, dict[str, float]] = {}
    for split, (scores, labels) in by_split.items():
        for found, said in ((before, scores), (after, apply(scores))):
            found[split] = {task: calibration_error(labels[:, t], said[:, t]) for t, task in enumerate(tasks)}
    return Calibrated(method, curves, before, after)


def platt(score_n: NDArray[np.float32], label_n: NDArray[np.float32]) -> Platt:
    """Fit scale and shift on the logit of the scores by maximum likelihood."""
    p_n = np.clip(score_n.astype(np.float64), 1e-7, 1 - 1e-7)
    logit_n1 = (np.log(p_n) - np.log1p(-p_n))[:, None]
    found = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(logit_n1, label_n)
    if found.coef_[0, 0] >= LEAST_SCALE:
        return Platt(float(found.coef_[0, 0]), float(found.intercept_[0]))
    rate = label_n.mean(dtype=np.float64)
    return Platt(LEAST_SCALE, float(np.log(rate) - np.log1p(-rate)))


def isotonic(score_n: NDArray[np.float32], label_n: NDArray[np.float32]) -> PiecewiseLinear:
    """Fit centred isotonic regression (Oron and Flournoy, 2017): lines between the blocks' means.

    Isotonic regression itself is a staircase, on which candidates of different scores would tie; between the
    means of its steps, and on to (0, 0) and (1, 1), the curve rises wherever the steps do.
    """
    score_n = score_n.astype(np.float64)
    step_n = IsotonicRegression(y_min=0.0, y_max=1.0).fit_transform(score_n, label_n)
    value_B, code_n, rows_B = np.unique(step_n, return_inverse=True, return_counts=True)
    mean_B = np.bincount(code_n, score_n) / rows_B
    if len(mean_B) > MOST_POINTS:
        kept = np.unique(np.linspace(0, len(mean_B) - 1, MOST_POINTS).astype(np.int64))
        mean_B, value_B = mean_B[kept], value_B[kept]
    inside = (mean_B > 0) & (mean_B < 1)
    x, y = np.r_[0.0, mean_B[inside], 1.0], np.r_[0.0, value_B[inside], 1.0]
    return PiecewiseLinear(tuple(map(float, x)), tuple(map(float, y)))


def read(run: Path) -> dict[str, dict[str, Any]]:
    """Return the curves of a run by task in the manifest's form; none where it was not calibrated.

    Raises:
        RunError: the file cannot be read.
    """
    path = run / FILE
    if not path.exists():
        return {}
    try:
        tasks: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["tasks"]
        Calibration.of(tasks, list(tasks))
    except (OSError, ValueError, KeyError, TypeError, CorruptBundle) as error:
        raise RunError(path, f"cannot be read: {error}; train again with `rankd train`") from error
    return tasks
