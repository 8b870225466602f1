"""A clock that jumps when told to, so that no test sleeps."""

from __future__ import annotations

__all__ = ["JumpingClock"]


class JumpingClock:
    """Monotonic and wall time under a test's control."""

    def __init__(self, wall_s: float = 1_800_000_000.0) -> None:
        self._monotonic_s, self._wall_s = 1000.0, wall_s

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def wall_s(self) -> float:
        return self._wall_s

    def jump(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self._monotonic_s += seconds
        self._wall_s += seconds

    def move_wall(self, seconds: float) -> None:
        """Set the wall clock, as an administrator or a leap second would."""
        self._wall_s += seconds
