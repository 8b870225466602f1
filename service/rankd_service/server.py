"""uvicorn's server, with a way to end that loses nobody's answer.

On SIGTERM the process first stops being ready, and for a short while goes on answering whoever still comes,
with 503 and the advice to go elsewhere: a connection closed at once would lose the request that is on its way
on it. Then it closes, finishes what it had accepted, and ends. A second signal ends it without waiting. A
terminal that is closed (SIGHUP) is a SIGTERM, but for a process that was told to ignore it (`nohup`).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import current_thread, main_thread
from types import FrameType

import uvicorn

from rankd_service.deadline import Clock

__all__ = ["DrainingServer"]

_log = logging.getLogger(__name__)


class DrainingServer(uvicorn.Server):
    """`on_drain` is called once, when the first signal comes; `lame_duck_s` pass before connections close.

    A person's Ctrl-C is not made to wait.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        clock: Clock,
        on_drain: Callable[[], None],
        lame_duck_s: float,
        listener: socket.socket | None = None,
    ) -> None:
        """Serve nothing yet; `listener` is the socket that uvicorn is given, where it is."""
        super().__init__(config)
        self._clock, self._on_drain, self._lame_duck_s = clock, on_drain, lame_duck_s
        self._close_at_s: float | None = None
        self._listener = None if listener is None else listener.dup()  # uvicorn closes its own
        if self._listener is not None:
            self._listener.setblocking(False)
        self.abandoned = 0

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Have one signal more than uvicorn has."""
        with super().capture_signals():
            captures = current_thread() is main_thread() and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
            before = signal.signal(signal.SIGHUP, self.handle_exit) if captures else None
            try:
                yield
            finally:
                if captures:
                    signal.signal(signal.SIGHUP, before)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; at the second signal, end."""
        if self._close_at_s is not None:
            self.abandon()
        else:
            self.drain(0.0 if sig == signal.SIGINT else self._lame_duck_s)

    def drain(self, patience_s: float) -> None:
        """Send away who comes within `patience_s`, then close, finish and end. Only the first call counts."""
        if self._close_at_s is None:
            self._close_at_s = self._clock.monotonic_s() + patience_s
            self._on_drain()

    def abandon(self) -> None:
        """End without waiting for what is under way."""
        self.force_exit = self.should_exit = True

    @property
    def closes(self) -> bool:
        """Whether the time for stragglers is over."""
        return self._close_at_s is not None and self._clock.monotonic_s() >= self._close_at_s

    async def on_tick(self, counter: int) -> bool:
        """Close once the time for stragglers is over: first the door, and those inside a moment later.

        Whoever was let in last has asked by then.
        """
        if self.closes:
            doors = [server for server in self.servers if server.is_serving()]
            for door in doors:
                door.close()
            if self._listener is not None:
                await self._let_in_the_last(self._listener)
                self._listener = None
            self.should_exit = not doors
        return await super().on_tick(counter)

    async def _let_in_the_last(self, listener: socket.socket) -> None:
        """Take who is connected already, to be sent away: the kernel would reset them with the socket."""
        loop, taken = asyncio.get_running_loop(), []
        with listener, suppress(OSError):
            while True:
                taken.append(listener.accept()[0])
        for connection in taken:
            connection.setblocking(False)
            with suppress(OSError):  # gone again
                await loop.connect_accepted_socket(self.protocol, connection)

    def protocol(self) -> asyncio.Protocol:
        """Make what speaks on one connection."""
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Close, wait for what was accepted, and say what was not waited for."""
        await super().shutdown(sockets)  # type: ignore[arg-type]
        self.abandoned = sum(not task.done() for task in self.server_state.tasks)
        if self.abandoned:
            _log.warning("requests were abandoned", extra={"requests": self.abandoned})
