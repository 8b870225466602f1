"""Starts the workers, watches them, replaces those that end or hang, and ends them all together.

It serves nothing and loads no model: what can crash a worker cannot crash what restarts it. It keeps the
listening socket open while workers come and go, so that whoever connects meanwhile is served by another.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress

from rankd_service.errors import StartupFailed
from rankd_service.plan import Plan
from rankd_service.settings import Settings
from rankd_service.workers.board import Board
from rankd_service.workers.nursery import Nursery
from rankd_service.workers.place import CANNOT_START, Place, Started
from rankd_service.workers.totals import Totals

__all__ = ["Supervisor"]

_TICK_S = 0.05
_COUNTS_S = 0.5  # how long a scrape waits for a worker, before it goes with what that one last said
_MARGIN_S = 3.0  # beyond the time to drain, for closing the store and leaving
_HOPELESS = 3
_log = logging.getLogger(__name__)


class Supervisor:
    """Runs `plan.workers` processes until it is told to stop."""

    def __init__(
        self,
        settings: Settings,
        plan: Plan,
        board: Board,
        listener: socket.socket,
        nursery: Nursery,
        clock: Callable[[], float],
    ) -> None:
        """Start nothing yet. The processes come from the nursery."""
        self._settings, self._listener, self._nursery, self._clock = settings, listener, nursery, clock
        self._board, self._totals = board, Totals()
        self._places = [Place(n, board.seats[n], settings.server.hang_s) for n in range(plan.workers)]
        self._tasks: set[asyncio.Task[None]] = set()
        self._expected: set[Place] = set()
        self._awake = asyncio.Event()
        self._stop_by_s: float | None = None
        self._ever_served = False
        self._failure: str | None = None

    async def run(self) -> None:
        """Supervise until the last worker has ended. Raises StartupFailed where none can serve."""
        loop = asyncio.get_running_loop()
        ends = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # `nohup` asks to be left alone
            ends.append(signal.SIGHUP)
        for sign in ends:
            loop.add_signal_handler(sign, self._on_signal, sign)
        looked_s = self._clock()
        try:
            while self._stop_by_s is None or self._expected or any(p.occupied for p in self._places):
                now_s = self._clock()
                for place in self._places:
                    self._look_after(place, now_s, now_s - looked_s)
                looked_s = now_s
                self._awake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_TICK_S):
                        await self._awake.wait()
        finally:
            self._nursery.stop()
            for place in self._places:
                place.kill()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._failure is not None:
            raise StartupFailed(self._failure)

    def _on_signal(self, sign: int) -> None:
        if self._stop_by_s is not None:
            for place in self._places:
                place.tell({"abandon": True})
            return
        server = self._settings.server
        self._stop(0.0 if sign == signal.SIGINT else server.lame_duck_s)

    def _stop(self, patience_s: float) -> None:
        _log.info("draining")
        self._stop_by_s = self._clock() + patience_s + self._settings.server.drain_s + _MARGIN_S
        self._nursery.stop()
        self._listener.close()  # the workers have it too, and close it when nobody is left to send away
        for place in self._places:
            place.tell({"drain": patience_s})
        self._awake.set()

    def _look_after(self, place: Place, now_s: float, passed_s: float) -> None:
        if not place.occupied:
            if self._stop_by_s is None and place not in self._expected and now_s >= place.start_at_s:
                self._expected.add(place)
                self._task(self._start(place))
            return
        code = place.exit_code()
        if code is not None:
            self._on_end(place, code, now_s)
        elif self._stop_by_s is not None and now_s > self._stop_by_s:
            _log.error("worker did not end in time, and was killed", extra={"worker": place.number})
            place.kill()
        elif place.look(now_s, passed_s):
            _log.error("worker hangs; it is replaced", extra={"worker": place.number})
        self._ever_served = self._ever_served or place.serves

    async def _start(self, place: Place) -> None:
        try:
            started = await self._nursery.birth(place.number)
        except OSError as error:  # no descriptor, no memory, no process to be had: the others go on
            self._on_no_start(place, error)
            return
        finally:
            self._expected.discard(place)
        place.occupy(started, self._task(self._listen_to(place, started)), self._clock())
        _log.info("worker started", extra={"worker": place.number, "pid": started.process.pid})
        if self._stop_by_s is not None:
            place.kill()  # it has taken no connection yet

    def _on_no_start(self, place: Place, error: OSError) -> None:
        if self._stop_by_s is not None:
            return
        if not self._ever_served and not any(other.occupied for other in self._places):
            self._failure = f"cannot start worker {place.number}: {error}"
            self._stop(0.0)
            return
        now_s = self._clock()
        place.stayed_empty(now_s)
        extra = {"worker": place.number, "in_s": round(place.start_at_s - now_s, 3)}
        _log.error("worker cannot be started now: %s", error, extra=extra)

    def _on_end(self, place: Place, code: int, now_s: float) -> None:
        stopping = self._stop_by_s is not None
        orderly = code == 0
        cause = place.vacated(code, now_s, calm=stopping or orderly)
        self._totals.retire(place.number)
        if stopping:
            return
        self._board.count_restart(cause)
        extra = {"worker": place.number, "cause": cause.value, "exit_code": code}
        _log.log(
            logging.INFO if orderly else logging.ERROR,
            "worker ended; it is started again",
            extra={**extra, "in_s": round(max(0.0, place.start_at_s - now_s), 3)},
        )
        if self._ever_served:
            return
        if code == CANNOT_START or all(other.failures >= _HOPELESS for other in self._places):
            self._failure = place.objection or (
                f"no worker could be started: each ended {_HOPELESS} times, the last by {cause.value} "
                f"(exit code {code}); the log above says why"
            )
            self._stop(0.0)

    async def _listen_to(self, place: Place, started: Started) -> None:
        """Answer one worker until its line ends."""
        orders = {
            "worker": place.number,
            "workers": len(self._places),
            "settings": self._settings.revealed(),
        }
        async for message in place.messages(started, orders):
            if "counts" in message:
                self._totals.keep(place.number, message["counts"])
                place.counted()
            elif "cannot" in message:
                place.objection = message["cannot"]
            elif "ask" in message:
                self._task(self._answer(place, message["ask"]))
        self._awake.set()

    async def _answer(self, asking: Place, question: int) -> None:
        waits = [place.ask_counts() for place in self._places if place.serves]
        if waits:
            await asyncio.wait(waits, timeout=_COUNTS_S)
        asking.tell({"totals": self._totals.merged(asking.number), "ask": question})

    def _task(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
