"""How late the event loop is: what everybody waits for who is ready to go on.

A process does one thing at a time, so whatever holds the loop up holds every request up, and none of a
request's stages shows it. A call that is due four times a second notes how much later it came.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

__all__ = ["LoopWatch"]

_PERIOD_S = 0.25
_WORTH_A_LINE_S = 0.5
_log = logging.getLogger(__name__)


class LoopWatch:
    """Watches the loop it is started on. `observe` gets each lateness in seconds."""

    def __init__(self, observe: Callable[[float], None], period_s: float = _PERIOD_S) -> None:
        """Watch nothing yet."""
        self._observe, self._period_s = observe, period_s
        self._next: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; the first call is due a period from now."""
        loop = asyncio.get_running_loop()
        self._next = loop.call_at(due_s := loop.time() + self._period_s, self._look, loop, due_s)

    def stop(self) -> None:
        """Watch no more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _look(self, loop: asyncio.AbstractEventLoop, due_s: float) -> None:
        late_s = max(0.0, loop.time() - due_s)
        self.start()  # whatever becomes of this look
        self._observe(late_s)
        if late_s > _WORTH_A_LINE_S:
            _log.warning("the event loop stood still", extra={"seconds": round(late_s, 3)})
