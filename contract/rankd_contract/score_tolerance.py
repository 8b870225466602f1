"""How far a score may lie from another that ought to be equal, computed elsewhere or in fewer bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["allowed", "worst_excess"]

_ROUNDING = 1e-6  # of a score: float32 sums in another order
_SMALLEST = 1e-37  # below it float32 has no digits left


def allowed(expected: NDArray[np.floating], tolerance: float) -> NDArray[np.float64]:
    """Return what each score may be off: `tolerance` at one half, and 4 p (1 - p) of it at p.

    That is the same difference of logits everywhere. Scores of a rare event lie near zero, where an absolute
    tolerance would let everything pass.
    """
    probable = expected.astype(np.float64).clip(0, 1)
    bounds: NDArray[np.float64] = probable * (4 * tolerance * (1 - probable) + _ROUNDING) + _SMALLEST
    return bounds


def worst_excess(
    found: NDArray[np.floating], expected: NDArray[np.floating], tolerance: float
) -> tuple[float, float]:
    """Return the difference that exceeds what is allowed by most, and what was: fine where it is not larger.

    What is no number is the worst there is. Both are 0 where there are no scores.
    """
    with np.errstate(invalid="ignore"):  # infinity less infinity is NaN
        difference = np.abs(found.astype(np.float64) - expected)
    if not difference.size:
        return 0.0, 0.0
    bounds = allowed(expected, tolerance)
    worst = np.argmax(np.nan_to_num(difference - bounds, nan=np.inf))
    return float(difference.flat[worst]), float(bounds.flat[worst])
