"""What running a graph costs: a fixed part and a part a row, learned when it is loaded and followed after.

So that a request which has not the time for all of its candidates scores as many as it has time for, instead
of finding out afterwards that it was too late: a graph that runs cannot be stopped.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["CostModel"]

_WEIGHT = 0.05  # of one run in what is known
_MARGIN = 1.25  # runs take longer than usual now and then
_FEW = 32  # rows: below, a run says more about the fixed part than about the rows


class CostModel:
    """Follows the seconds a run takes as `fixed + rows * per row`."""

    def __init__(self, runs: Iterable[tuple[int, float]] = ()) -> None:
        """Learn from runs of different sizes: (rows, seconds). Nothing known means that nothing costs."""
        known = sorted(runs)
        self._fixed_s = self._row_s = 0.0
        if known:
            (few, few_s), (many, many_s) = known[0], known[-1]
            self._row_s = max(0.0, many_s - few_s) / max(1, many - few)
            self._fixed_s = max(0.0, few_s - few * self._row_s)

    def expected_s(self, rows: int) -> float:
        """Return what a run over so many rows takes, on average."""
        return self._fixed_s + rows * self._row_s

    def rows_within(self, budget_s: float) -> int:
        """Return how many rows can be scored in this time with some margin; 0 where not even one."""
        spare_s = budget_s / _MARGIN - self._fixed_s
        if spare_s <= 0:
            return 0
        return int(min(spare_s / self._row_s, 1e9)) if self._row_s else 1_000_000_000

    def took(self, rows: int, seconds: float) -> None:
        """Note one run."""
        expected_s = self.expected_s(rows)
        if rows < _FEW:
            self._fixed_s += _WEIGHT * (max(0.0, seconds - rows * self._row_s) - self._fixed_s)
        elif expected_s:  # a slower machine is slower in both parts
            change = 1 + _WEIGHT * (seconds / expected_s - 1)
            self._fixed_s, self._row_s = self._fixed_s * change, self._row_s * change
        else:
            self._row_s = _WEIGHT * seconds / rows
