"""A worker process: the whole service, on a socket it shares, on a line to the supervisor."""

from __future__ import annotations

import asyncio
import faulthandler
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import ParamSpec

import uvicorn
from prometheus_client.registry import Collector
from setproctitle import setproctitle

from rankd_service.app import Service, server_config, wire
from rankd_service.errors import RejectReason, StartupFailed, Unavailable
from rankd_service.lifecycle import Lifecycle
from rankd_service.logs import log_to_stderr
from rankd_service.server import DrainingServer
from rankd_service.settings import Settings
from rankd_service.workers.acceptor import Acceptor
from rankd_service.workers.board import Board, Standing
from rankd_service.workers.exposition import Families, snapshot
from rankd_service.workers.place import CANNOT_START
from rankd_service.workers.shares import Shares
from rankd_service.workers.tether import Tether

__all__ = ["main"]

P = ParamSpec("P")

_BEAT_S = 0.1
_TOTALS_S = 2.0
_MARGIN_S = 2.0
_FORSAKEN = 1


def main(arguments: Sequence[str]) -> int:
    """Serve as one of several -> exit code. `arguments` are descriptors: the line, the socket, the board."""
    faulthandler.enable()  # a worker that crashes or is found hanging writes where
    line, listener, page = map(int, arguments)
    try:
        tether = Tether(socket.socket(fileno=line))
    except EOFError:
        return _FORSAKEN
    number, settings = tether.orders["worker"], Settings(**tether.orders["settings"])
    setproctitle(f"rankd-worker-{number}")
    log_to_stderr(settings.server.log_level.value.upper(), worker=number)
    board = Board(page, tether.orders["workers"])
    shares = Shares(board, number)

    async def exposition() -> Collector:
        answer = await asyncio.to_thread(tether.totals)
        done, _ = await asyncio.wait({asyncio.wrap_future(answer)}, timeout=_TOTALS_S)
        if not done:  # this worker's own numbers would look as if all counters had fallen
            raise Unavailable(RejectReason.NOT_READY, "the supervisor does not answer; ask again")
        return Families(answer.result())

    try:
        service = wire(settings, crew=board, exposition=exposition, lets_go=shares.lets_go)
    except StartupFailed as error:
        tether.send({"cannot": str(error)})
        return CANNOT_START
    server = WorkerServer(
        server_config(service, settings.server),
        service,
        settings,
        board,
        number,
        socket.socket(fileno=listener),
        shares,
    )
    server.follow(tether)
    server.run(sockets=[])
    tether.send({"counts": snapshot(service.telemetry.registry)})
    return 0


class WorkerServer(DrainingServer):
    """Takes connections from the shared socket, and lets its seat on the board show how it stands."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        settings: Settings,
        board: Board,
        number: int,
        listener: socket.socket,
        shares: Shares,
    ) -> None:
        """Serve nothing yet."""
        super().__init__(config, service.clock, service.lifecycle.drain, settings.server.lame_duck_s)
        self._settings, self._service, self._seat = settings, service, board.seats[number]
        self._shares = shares
        self._acceptor = Acceptor(
            listener, board, number, self.protocol, lambda: len(self.server_state.connections)
        )
        self._loop: asyncio.AbstractEventLoop | None = None

    def follow(self, tether: Tether) -> None:
        """Do what the supervisor says."""
        server = self._settings.server
        tether.follow(
            lambda: snapshot(self._service.telemetry.registry),
            self._soon(self.drain),
            self._soon(self.abandon),
            patience_s=server.drain_s + _MARGIN_S,
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; again and again is the same, as some send signals to each process of a group."""
        self.drain(self._settings.server.lame_duck_s)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections."""
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        # Told at once, or those who hear that this one is ready would meet another that is not.
        self._service.lifecycle.on_change = self._report
        self._beat(self._loop)
        self._acceptor.open(self._loop)

    async def on_tick(self, counter: int) -> bool:
        """Take no more connections first, and close the open ones a moment later, once they have asked."""
        if self.closes and self._acceptor.close():
            return False
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Close, and wait for what was accepted."""
        self._acceptor.close()
        await super().shutdown(sockets)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._report()
        self._shares.look()
        loop.call_later(_BEAT_S, self._beat, loop)

    def _report(self) -> None:
        self._seat.report(_standing(self._service.lifecycle), self._acceptor.connections)

    def _soon(self, act: Callable[P, None]) -> Callable[P, None]:
        def call(*arguments: P.args, **named: P.kwargs) -> None:
            if self._loop is None:
                act(*arguments, **named)
                return
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(partial(act, *arguments, **named))

        return call


def _standing(lifecycle: Lifecycle) -> Standing:
    if lifecycle.draining:
        return Standing.DRAINING
    return Standing.READY if lifecycle.ready else Standing.NOT_READY
