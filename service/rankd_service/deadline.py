"""Time: the clocks that are injected, and the deadline a request spends stage by stage.

Durations and deadlines come from a monotonic clock only; the wall clock serves the age of features.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from rankd_service.domain import Stage
from rankd_service.errors import DeadlineExceeded

__all__ = ["Clock", "Deadline", "SystemClock"]


class Clock(Protocol):
    """The two times of day a service needs."""

    def monotonic_s(self) -> float:
        """Return seconds that only ever grow; for durations."""
        ...

    def wall_s(self) -> float:
        """Return seconds since 1970; for the age of what is stored."""
        ...


class SystemClock:
    """The machine's clocks."""

    def monotonic_s(self) -> float:
        """Return seconds since some fixed moment."""
        return time.perf_counter()

    def wall_s(self) -> float:
        """Return seconds since 1970."""
        return datetime.now(UTC).timestamp()


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in monotonic time after which the answer is worthless."""

    clock: Clock
    expires_s: float

    def remaining_s(self) -> float:
        """Return what is left; negative once it has passed."""
        return self.expires_s - self.clock.monotonic_s()

    def budget_s(self, cap_s: float, reserve_s: float) -> float:
        """Return what a stage may spend: its cap, or less so that `reserve_s` is left for what follows."""
        return min(cap_s, self.remaining_s() - reserve_s)

    def check(self, stage: Stage) -> None:
        """Raise DeadlineExceeded where nothing is left before `stage`."""
        if self.remaining_s() <= 0:
            raise DeadlineExceeded(
                f"the deadline passed before {stage.value}; allow more time or send fewer candidates"
            )
