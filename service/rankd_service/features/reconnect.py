"""When to try a server again that did not answer: one attempt a backoff step, whoever asks, and jittered.

Everybody may connect while the server is up. After a failure everybody is refused at once with the reason
of that failure, but for one attempt each step, so that a server that is down costs requests no time and a
server that comes back is not met by all connections at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from rankd_service.errors import StoreErrorKind

__all__ = ["FIRST_STEP_S", "LONGEST_STEP_S", "ReconnectGate"]

FIRST_STEP_S = 0.05
LONGEST_STEP_S = 1.0  # so that a server that is back is found within two seconds

Reason = tuple[StoreErrorKind, str]


class ReconnectGate:
    """Counts failures in a row; `share` draws the part of a step that is waited, from 0.5 to 1."""

    def __init__(self, share: Callable[[float, float], float] = random.uniform) -> None:
        """Start open."""
        self._share = share
        self._failures = 0
        self._not_before = self._last_failure = float("-inf")
        self._reason: Reason = StoreErrorKind.REFUSED, ""

    def refusal(self, now: float) -> Reason | None:
        """Return why nobody may try now, or None: after failures that is the step's one attempt."""
        if not self._failures:
            return None
        if now < self._not_before:
            return self._reason
        self._not_before = now + self._step()
        return None

    def failed(self, started: float, now: float, reason: Reason) -> None:
        """Note a failed attempt; one begun before the last failure is of the same step."""
        self._reason = reason
        if started <= self._last_failure:
            return
        self._failures += 1
        self._last_failure, self._not_before = now, now + self._step()

    def passed(self) -> None:
        """Note an answer: the server is up."""
        self._failures = 0

    def _step(self) -> float:
        step = min(FIRST_STEP_S * float(2 ** min(self._failures - 1, 16)), LONGEST_STEP_S)
        return step * self._share(0.5, 1.0)
