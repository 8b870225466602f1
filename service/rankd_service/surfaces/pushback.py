"""How long a connection is not listened to after a refusal at the door: not at all while they are few.

A refusal takes some 30 us. A few for each request that is let in are worth it, and the next request on the
connection is heard at once: callers share connections, so it is seldom the refused one's repetition, and held
back it would only be late. Callers that repeat refused requests without a pause would leave no time for
others: beyond the few, each connection pauses until its turn for another refusal comes, so that all of them
together get no more than that.
"""

from __future__ import annotations

__all__ = ["Pushback"]

_SHORTEST_S, _LONGEST_S = 0.02, 1.6
_WEIGHT = 0.05  # of one interval between requests let in
_LONGEST_INTERVAL_S = 0.1  # a longer one was a time with nothing to do
_MOST_OWED = 10_000.0


class Pushback:
    """Shared by all connections of a process: `free` refusals for each request let in, `most` saved up."""

    def __init__(self, free: float = 3.0, most: float = 500.0) -> None:
        """Start with all that can be saved up."""
        self._free, self._most = free, most
        self._left = most
        self._let_in_s, self._interval_s = 0.0, _LONGEST_INTERVAL_S

    def let_in(self, now_s: float) -> None:
        """Note a request that was let in."""
        interval_s = min(now_s - self._let_in_s, _LONGEST_INTERVAL_S)
        self._let_in_s, self._interval_s = now_s, self._interval_s + _WEIGHT * (interval_s - self._interval_s)
        self._left = min(self._left + self._free, self._most)

    def after_refusal(self) -> float:
        """Note a refusal -> seconds for which its connection is not listened to."""
        self._left = max(self._left - 1, -_MOST_OWED)
        if self._left >= 0:
            return 0.0
        return min(max(-self._left * self._interval_s / self._free, _SHORTEST_S), _LONGEST_S)
