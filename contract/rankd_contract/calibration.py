"""From a model's scores to probabilities that can be taken at their word: one increasing curve a task.

A bundle's manifest carries the curves; training fits them, the service applies them after the graph. A score
comes out the same whatever else is in the batch.

Legend: N scores, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankd_contract.errors import CorruptBundle

__all__ = ["NEAREST", "Calibration", "Curve", "PiecewiseLinear", "Platt", "curve_from", "curve_to"]

# A float32 score this near 0 or 1 says no more than that.
NEAREST = 1e-7
_A_LINE = 2


@dataclass(frozen=True, slots=True)
class Platt:
    """sigmoid(scale * logit(score) + shift) (Platt, 1999); `scale` is above 0."""

    scale: float
    shift: float

    def __post_init__(self) -> None:
        """Raise CorruptBundle for numbers that would turn the order round or mean nothing."""
        if not (np.isfinite([self.scale, self.shift]).all() and self.scale > 0):
            raise CorruptBundle(
                f"calibration: scale {self.scale}, shift {self.shift}: expected scale above 0"
            )

    def __call__(self, score_N: NDArray[np.floating]) -> NDArray[np.float64]:
        """Scores -> probabilities; NaN stays NaN."""
        p_N = np.clip(score_N.astype(np.float64), NEAREST, 1 - NEAREST)
        out_N: NDArray[np.float64] = 1 / (1 + ((1 - p_N) / p_N) ** self.scale * np.exp(-self.shift))
        return out_N


@dataclass(frozen=True, slots=True)
class PiecewiseLinear:
    """Straight lines between points; flat before the first and after the last.

    Attributes:
        scores: where the points are, rising, in 0 to 1; at least two.
        probabilities: their values, never falling, in 0 to 1.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raise CorruptBundle for points that are no rising curve."""
        x, y = np.asarray(self.scores, np.float64), np.asarray(self.probabilities, np.float64)
        within = all(((p >= 0) & (p <= 1)).all() for p in (x, y))
        rises = (np.diff(x) > 0).all() and (np.diff(y) >= 0).all()
        if len(x) != len(y) or len(x) < _A_LINE or not within or not rises:
            raise CorruptBundle("calibration: expected two or more points from 0 to 1 that rise")

    def __call__(self, score_N: NDArray[np.floating]) -> NDArray[np.float64]:
        """Scores -> probabilities; NaN stays NaN."""
        out_N: NDArray[np.float64] = np.interp(score_N, self.scores, self.probabilities)
        return out_N


Curve = Platt | PiecewiseLinear
_KINDS: Mapping[str, type[Platt] | type[PiecewiseLinear]] = {
    "platt": Platt,
    "piecewise_linear": PiecewiseLinear,
}


@dataclass(frozen=True, slots=True)
class Calibration:
    """The curves of a model's tasks in their order; None leaves a task's scores as they are."""

    curves: tuple[Curve | None, ...]

    @classmethod
    def of(cls, by_task: Mapping[str, Mapping[str, Any]], tasks: Sequence[str]) -> Calibration:
        """Read a manifest's curves. Raises CorruptBundle where one is wrong or for no task."""
        unknown = sorted(by_task.keys() - set(tasks))
        if unknown:
            raise CorruptBundle(f"calibration is for {', '.join(unknown)}; the tasks are {', '.join(tasks)}")
        return cls(tuple(curve_from(by_task[task]) if task in by_task else None for task in tasks))

    def __call__(self, scores_NT: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores [N, T] -> probabilities [N, T]; the same array where nothing is calibrated."""
        if not any(self.curves):
            return scores_NT
        out_NT = scores_NT.copy()
        for task, curve in enumerate(self.curves):
            if curve is not None:
                # One column is copied so that numpy takes the same path for any number of rows.
                out_NT[:, task] = curve(np.ascontiguousarray(scores_NT[:, task]))
        return out_NT


def curve_to(curve: Curve) -> dict[str, Any]:
    """Put a curve into the manifest's form."""
    kind = next(kind for kind, made in _KINDS.items() if isinstance(curve, made))
    return {"kind": kind, **asdict(curve)}


def curve_from(tree: Mapping[str, Any]) -> Curve:
    """Read a curve back. Raises CorruptBundle."""
    try:
        given = dict(tree)
        made = _KINDS[given.pop("kind")]
        numbers: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in given.items()
        }
        return made(**numbers)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptBundle(f"calibration: incomplete or altered: {error}") from error
