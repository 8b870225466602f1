"""Takes connections from the one listening socket that all workers share, and shares them out evenly.

Whoever is free takes the next connection, so that none waits for a worker that hangs, starts or is gone. But
connections are kept for long: a worker that has more than another steps back for a moment, and takes what is
still there after it. (SO_REUSEPORT gives each worker a queue of its own: by chance the fuller, the one that
hangs, or the one whose process just died. ADR 11 has the figures.)
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from rankd_service.workers.board import Board

__all__ = ["Acceptor"]

_STEP_BACK_S = 0.002
_NOT_MINE_S = 0.02
_NO_DESCRIPTOR_S = 0.2
_log = logging.getLogger(__name__)


class Acceptor:
    """One worker's hand on the shared socket."""

    def __init__(
        self,
        listener: socket.socket,
        board: Board,
        number: int,
        protocol: Callable[[], asyncio.Protocol],
        open_connections: Callable[[], int],
    ) -> None:
        """Take nothing yet; `number` is the worker's own seat."""
        self._listener, self._protocol, self._open = listener, protocol, open_connections
        self._mine = board.seats[number]
        self._others = tuple(seat for n, seat in enumerate(board.seats) if n != number)
        self._opening: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._later: asyncio.TimerHandle | None = None

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to take connections."""
        self._loop = loop
        self._listen()

    def close(self) -> bool:
        """Take what has come, and nothing more -> whether it was open."""
        if self._loop is None:
            return False
        # Closing the socket would reset those whom the kernel let in, unless somebody else has it open too.
        while not self._better_one_is_there() and self._take():
            pass
        if self._later is not None:
            self._later.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._loop = None
        return True

    @property
    def connections(self) -> int:
        """Connections that are open, or about to be."""
        return self._open() + len(self._opening)

    def _listen(self) -> None:
        assert self._loop is not None
        self._later = None
        self._loop.add_reader(self._listener, self._on_connection)

    def _on_connection(self) -> None:
        if self._better_one_is_there():
            self._pause(_NOT_MINE_S, self._listen)
        elif self._another_has_clearly_fewer():
            self._pause(_STEP_BACK_S, self._take_turn)
        else:
            self._take()

    def _take_turn(self) -> None:
        if self._take() is not None:
            self._listen()

    def _pause(self, seconds: float, then: Callable[[], None]) -> None:
        assert self._loop is not None
        self._loop.remove_reader(self._listener)
        self._later = self._loop.call_later(seconds, then)

    def _better_one_is_there(self) -> bool:
        """Whether others are ready and this one is not, so that it could only send people away."""
        return any(seat.standing > self._mine.standing for seat in self._others)

    def _another_has_clearly_fewer(self) -> bool:
        peers = [seat.connections for seat in self._others if seat.standing == self._mine.standing]
        fewest = min(peers, default=self.connections)
        # Some slack where there are many, or the last ones of a burst would have to wait for their turns.
        return self.connections > fewest + fewest // 8

    def _take(self) -> bool | None:
        """Take one connection -> whether there was one; None where we have to wait for a descriptor."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            _log.warning("cannot take a connection: %s", error)
            self._pause(_NO_DESCRIPTOR_S, self._listen)
            return None
        connection.setblocking(False)
        assert self._loop is not None
        task = self._loop.create_task(self._connect(self._loop, connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        self._mine.connections = self.connections
        return True

    async def _connect(self, loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
        try:
            await loop.connect_accepted_socket(self._protocol, connection)
        except OSError:  # gone again
            connection.close()
