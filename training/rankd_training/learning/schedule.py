"""How a learning rate falls over a run: a share of it for every step, from where the run stands alone."""

from __future__ import annotations

import math

__all__ = ["SCHEDULES", "rate_share"]

SCHEDULES = ("constant", "linear", "cosine")


def rate_share(schedule: str, done: int, steps: int) -> float:
    """Return the share of the learning rate for the step after `done` of `steps` in all, above 0, at most 1.

    `linear` and `cosine` (Loshchilov and Hutter, 2017, without restarts) would reach 0 after the last step.
    It depends on nothing else, so that a run which was killed goes on as it would have.
    """
    if schedule == "constant":
        return 1.0
    left = 1 - done / steps
    return left if schedule == "linear" else (1 - math.cos(math.pi * left)) / 2
