"""When to ask a server that did not answer: one attempt a step, whoever asks, steps doubling and jittered.

Everybody may ask while the server answers. Once it refuses, or several in a row have waited for it in vain,
everybody is told so at once but for one attempt each step: a server that is down, or frozen, costs requests
no time, and one that comes back is not met by all at once. Any answer, a late one too, opens the way again.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from rankd_service.errors import StoreErrorKind

__all__ = ["FIRST_STEP_S", "LONGEST_STEP_S", "Breaker"]

FIRST_STEP_S = 0.05
LONGEST_STEP_S = 1.0  # so that a server that is back is found within two seconds
IN_VAIN = 5
PATIENCE_S = 0.01  # who waits less than this says nothing about the server

Reason = tuple[StoreErrorKind, str]


class Breaker:
    """Counts failures in a row; `share` draws the part of a step that is waited, from 0.5 to 1."""

    def __init__(self, share: Callable[[float, float], float] = random.uniform) -> None:
        """Start closed: everybody may ask."""
        self._share = share
        self._failures = self._in_vain = 0
        self._not_before = self._last_failure = float("-inf")
        self._reason: Reason = StoreErrorKind.REFUSED, ""

    def refusal(self, now: float) -> Reason | None:
        """Return why nobody may ask now, or None: after failures that is the step's one attempt."""
        if not self._failures:
            return None
        if now < self._not_before:
            return self._reason
        self._not_before = now + self._step()
        return None

    def failed(self, began: float, now: float, reason: Reason) -> None:
        """Note a failed attempt; one begun before the last failure is of the same step."""
        self._reason = reason
        if began <= self._last_failure:
            return
        self._failures += 1
        self._last_failure, self._not_before = now, now + self._step()

    def waited(self, began: float, now: float, late: str) -> None:
        """Note one who waited and left; `IN_VAIN` of them with no answer in between are a failure."""
        if now - began < PATIENCE_S:
            return
        self._in_vain += 1
        if self._in_vain >= IN_VAIN:
            self.failed(began, now, (StoreErrorKind.BREAKER_OPEN, late))

    def passed(self) -> None:
        """Note an answer: the server is up."""
        self._failures = self._in_vain = 0

    def _step(self) -> float:
        step = min(FIRST_STEP_S * float(2 ** min(self._failures - 1, 16)), LONGEST_STEP_S)
        return step * self._share(0.5, 1.0)
