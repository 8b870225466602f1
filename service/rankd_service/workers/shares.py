"""Whether a worker has more connections than its share, and so should let go of some.

Connections are kept for long, and `Acceptor` can only share out new ones: whoever was the first to be ready,
or did not die, would keep all that were opened meanwhile. So a worker that has clearly more than another
closes some after their answers, few at a time; callers open them anew, and the other one takes them.
"""

from __future__ import annotations

from rankd_service.workers.board import Board, Standing

__all__ = ["Shares"]

_AT_ONCE = 8  # the part of a worker's connections that are let go between two looks


class Shares:
    """One worker's share."""

    def __init__(self, board: Board, number: int) -> None:
        """Let nothing go yet; `number` is the worker's own seat."""
        self._mine = board.seats[number]
        self._others = tuple(seat for n, seat in enumerate(board.seats) if n != number)
        self._beats = [0] * len(self._others)
        self._to_let_go = 0

    def look(self) -> None:
        """See how connections are shared out between those who are ready, and whose loop has turned since."""
        self._to_let_go = 0
        before, self._beats = self._beats, [seat.beat for seat in self._others]
        moved = [seat for seat, beat in zip(self._others, before, strict=True) if seat.beat != beat]
        if self._mine.standing is not Standing.READY:
            return
        mine = self._mine.connections
        counts = [seat.connections for seat in moved if seat.standing is Standing.READY]
        fewest = min(counts, default=mine)
        if mine > fewest + max(1, fewest // _AT_ONCE):
            fair = -(-(mine + sum(counts)) // (1 + len(counts)))
            self._to_let_go = min(mine - fair, max(1, mine // _AT_ONCE))

    def lets_go(self) -> bool:
        """Tell whether to close the connection that is being answered; counted as closed where so."""
        if self._to_let_go <= 0:
            return False
        self._to_let_go -= 1
        return True
