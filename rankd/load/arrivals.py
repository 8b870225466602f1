"""When requests are due. A closed loop would ask less as soon as the service is slow, and flatter it."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["Arrivals", "due_times"]


class Arrivals(StrEnum):
    """How requests are spread: evenly, or as independent callers would send them."""

    CONSTANT = "constant"
    POISSON = "poisson"


def due_times(arrivals: Arrivals, rate: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Return when each request is due, in seconds from the start, ascending; about rate * seconds of them."""
    if arrivals is Arrivals.CONSTANT:
        return np.arange(round(rate * seconds)) / rate
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1 / rate, round(1.2 * rate * seconds) + 100)
    times: NDArray[np.float64] = np.cumsum(gaps)
    return times[times < seconds]
