"""How long a connection is not listened to after a refusal at the door: not at all while they are few.

A refusal takes some 50 us. As long as all of them together take a small part of the process's time they are
worth it, and the next request on the connection is heard at once: callers share connections, so it is seldom
the refused one's repetition, and held back it would only be late. Beyond that part, callers that repeat
refused requests without a pause would leave no time for others, and are made to pause.
"""

from __future__ import annotations

__all__ = ["Pushback"]

_LONGEST_S = 1.6
_BURST_S = 0.25
_MOST_DOUBLINGS = 20


class Pushback:
    """Shared by all connections of a process: `free_a_s` refusals a second cost their connection nothing.

    Beyond, a connection is not listened to for `pause_s`, and for twice as long each further time in a row.
    """

    def __init__(self, free_a_s: float = 3000.0, pause_s: float = 0.05) -> None:
        """Start with the refusals of a quarter of a second to give."""
        self._free_a_s, self._pause_s = free_a_s, pause_s
        self._left, self._at_s = free_a_s * _BURST_S, 0.0

    def after_refusal(self, now_s: float, in_a_row: int) -> float:
        """Note a refusal -> seconds for which its connection is not listened to, after so many pauses."""
        earned = (now_s - self._at_s) * self._free_a_s
        self._left, self._at_s = min(self._left + earned, self._free_a_s * _BURST_S), now_s
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return min(self._pause_s * 2.0 ** min(in_a_row, _MOST_DOUBLINGS), _LONGEST_S)
