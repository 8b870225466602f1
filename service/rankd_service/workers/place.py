"""One worker's place as the supervisor sees it: the process that has it, the line to it, and its record."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from rankd_service.workers.adopted import Adopted
from rankd_service.workers.board import Cause, Seat
from rankd_service.workers.patience import Backoff, Vigil

__all__ = ["CANNOT_START", "Place", "Started"]

CANNOT_START = 78  # what sysexits.h calls EX_CONFIG: starting it again would not help

_START_S = 60.0  # imports on a slow disk; models are loaded beside the loop, which beats by then
_LONGEST_LOOK_S = 0.5
_LAST_WORDS_S = 1.0
_LONGEST_LINE = 64 << 20


@dataclass(frozen=True, slots=True)
class Started:
    """A process that was started, and our end of the line to it."""

    process: Adopted
    line: socket.socket


class Place:
    """Holds one process after the other."""

    def __init__(self, number: int, seat: Seat, hang_s: float) -> None:
        """Be empty, to be filled at once."""
        self.number, self._seat, self._hang_s = number, seat, hang_s
        self._backoff = Backoff()
        self._started: Started | None = None
        self._line: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._counts: asyncio.Future[None] | None = None
        self._began_s, self.start_at_s = 0.0, 0.0
        self._condemned_until_s: float | None = None
        self.objection: str | None = None

    @property
    def occupied(self) -> bool:
        """Whether there is a process that has not been buried."""
        return self._started is not None

    @property
    def serves(self) -> bool:
        """Whether the process's event loop has turned at all."""
        return self._started is not None and self._vigil.began

    @property
    def failures(self) -> int:
        """How often in a row the process ended early."""
        return self._backoff.failures

    def occupy(self, started: Started, line: asyncio.Task[None], now_s: float) -> None:
        """Take a process in; `line` listens to it."""
        self._started, self._line, self._began_s = started, line, now_s
        self._vigil = Vigil(_START_S, self._hang_s, _LONGEST_LOOK_S)
        self._condemned_until_s = None

    def exit_code(self) -> int | None:
        """Return the exit code once the process has ended and all it said was heard; negative: a signal."""
        assert self._started is not None
        assert self._line is not None
        code = self._started.process.poll()
        return code if self._line.done() else None

    def look(self, now_s: float, passed_s: float) -> bool:
        """Look whether the process hangs -> True once, when it is found to; then it is made to end."""
        if self._condemned_until_s is not None:
            if now_s > self._condemned_until_s:
                self.kill()
            return False
        if not self._vigil.hangs(self._seat.beat, passed_s):
            return False
        self._condemned_until_s = now_s + _LAST_WORDS_S
        self._signal(signal.SIGABRT)  # it writes what each thread was doing
        self._seat.clear()
        return True

    def vacated(self, code: int, now_s: float, *, calm: bool) -> Cause:
        """Bury the process -> why it ended. Nothing is held against one that ended as it was told."""
        if self._condemned_until_s is not None:
            cause = Cause.HUNG
        elif code < 0:
            cause = Cause.KILLED if -code == signal.SIGKILL else Cause.SIGNAL
        else:
            cause = Cause.EXITED
        self._started = self._line = self._writer = None
        if self._counts is not None and not self._counts.done():
            self._counts.set_result(None)
        self._counts = None
        self._seat.clear()
        if calm:
            self.start_at_s = now_s
        else:
            self.start_at_s = now_s + self._backoff.pause_s(now_s - self._began_s)
            self._seat.failed(cause, self._backoff.failures)
        return cause

    def stayed_empty(self, now_s: float) -> None:
        """Note that no process could be started; the next attempt waits as after one that ended at once."""
        self.start_at_s = now_s + self._backoff.pause_s(0.0)

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message to the process, if there is one; never waits."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    def ask_counts(self) -> asyncio.Future[None]:
        """Ask for metrics -> done when they have come; a process that does not answer is asked once only."""
        if self._counts is None or self._counts.done():
            self._counts = asyncio.get_running_loop().create_future()
            self.tell({"count": True})
        return self._counts

    def counted(self) -> None:
        """Note that metrics have come."""
        if self._counts is not None and not self._counts.done():
            self._counts.set_result(None)

    def kill(self) -> None:
        """End the process whatever it does."""
        self._signal(signal.SIGKILL)

    async def messages(self, started: Started, orders: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Give the process its orders, and yield what it says until its line ends."""
        reader, writer = await asyncio.open_connection(sock=started.line, limit=_LONGEST_LINE)
        self._writer = writer
        self.tell(orders)
        try:
            while line := await reader.readline():
                yield json.loads(line)
        except (ConnectionError, ValueError):  # it was cut off in the middle of a word
            self._signal(signal.SIGKILL)
        finally:
            writer.close()

    def _signal(self, sign: signal.Signals) -> None:
        if self._started is not None:
            self._started.process.send_signal(sign)
