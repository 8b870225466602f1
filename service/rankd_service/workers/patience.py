"""How long a silent worker is waited for, and how long a failing one is left alone: plain arithmetic."""

from __future__ import annotations

__all__ = ["Backoff", "Vigil"]


class Vigil:
    """Notices that a worker's beat stands still.

    Silence is the sum of the times between two looks, each counted as `longest_look_s` at most: after the
    whole machine, or a container, was stopped and goes on, everybody has been silent, and nobody hangs.
    """

    def __init__(self, starting_s: float, hanging_s: float, longest_look_s: float) -> None:
        """Wait `starting_s` for the first beat and `hanging_s` for each further one."""
        self._starting_s, self._hanging_s = starting_s, hanging_s
        self._longest_look_s = longest_look_s
        self._beat, self._silent_s = 0, 0.0

    @property
    def began(self) -> bool:
        """Whether there was a beat at all."""
        return self._beat > 0

    def hangs(self, beat: int, passed_s: float) -> bool:
        """Look at the beat, `passed_s` after the last look -> whether it stands still for too long."""
        if beat != self._beat:
            self._beat, self._silent_s = beat, 0.0
            return False
        self._silent_s += min(passed_s, self._longest_look_s)
        return self._silent_s > (self._hanging_s if self.began else self._starting_s)


class Backoff:
    """Pauses before a worker is started again: short after a long life, doubling in a loop of crashes."""

    def __init__(self, first_s: float = 0.1, longest_s: float = 30.0, calm_s: float = 60.0) -> None:
        """Begin with `first_s` again after a life of at least `calm_s`."""
        self._first_s, self._longest_s, self._calm_s = first_s, longest_s, calm_s
        self.failures = 0

    def pause_s(self, lived_s: float) -> float:
        """Count one end after a life of `lived_s` -> how long to wait before the next start."""
        self.failures = 1 if lived_s >= self._calm_s else self.failures + 1
        return float(min(self._first_s * 2.0 ** (self.failures - 1), self._longest_s))
