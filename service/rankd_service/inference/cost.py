"""What running a graph costs: a fixed part and a part a row, learned when it is loaded and followed after.

So that a request which has not the time for all of its candidates scores as many as it has time for, instead
of finding out afterwards that it was too late: a graph that runs cannot be stopped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["CostModel"]

_WEIGHT = 0.05  # of one run in what is known
_MARGIN = 1.25  # runs take longer than usual now and then
_FORGOTTEN = 0.005  # of the estimate, for each request that had no time for a single row


class CostModel:
    """Follows the seconds a run takes as `fixed + rows * per row`."""

    def __init__(self, runs: Iterable[tuple[int, float]] = ()) -> None:
        """Learn from runs of different sizes: (rows, seconds). Nothing known means that nothing costs."""
        known = sorted(runs)
        self._fixed_s = self._row_s = 0.0
        self._guessed = False  # the estimate was brought down with nothing to show for it
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

    def piece(self, rows: int, seconds: float) -> int:
        """Return how many of `rows` to score in a run of about so long, all such runs being as long.

        A run is not made so short that its fixed part would be more than a third of it.
        """
        if not self._row_s:
            return rows
        most = max(1.0, (seconds - self._fixed_s) / self._row_s, 2 * self._fixed_s / self._row_s)
        return math.ceil(rows / math.ceil(rows / most))

    def took(self, rows: int, seconds: float) -> None:
        """Note one run, or with no rows that there was no time for any.

        A run far slower than expected is a stall of the machine more often than the model's doing, so it
        counts as twice as slow at most. Where nothing is run nothing is learned: the estimate then shrinks
        bit by bit, until something is run again and shows what it costs now.
        """
        expected_s = self.expected_s(max(rows, 1))
        if not expected_s:
            self._row_s = _WEIGHT * seconds / max(rows, 1)
            return
        if rows:
            seen = min(max(seconds / expected_s, 0.5), 2.0)
            change = seen if self._guessed else 1 + _WEIGHT * (seen - 1)
        else:
            change = 1 - _FORGOTTEN
        self._guessed = not rows
        self._fixed_s, self._row_s = self._fixed_s * change, self._row_s * change
