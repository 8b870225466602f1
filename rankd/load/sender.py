"""Sends requests when they are due and notes what became of each, over as many connections as that takes.

A request never waits for another: where all connections are busy a new one is opened, up to a bound beyond
which it counts as not sent. Latency counts from the moment a request was due, not from when it was sent, so a
stalled service, or a stalled generator, is not flattered.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httptools
import numpy as np
from numpy.typing import NDArray

__all__ = ["LOST", "NOT_SENT", "Outcome", "send_all"]

NOT_SENT, LOST = 0, -1
_MOST_CONNECTIONS = 2048
_NOTED_A_SECOND = 200_000  # how many can be put on the loop, or less


@dataclass(slots=True)
class Outcome:
    """One request: due, sent and answered in seconds from the start; its status, or NOT_SENT or LOST."""

    due_s: float
    sent_s: float = float("nan")
    done_s: float = float("nan")
    status: int = NOT_SENT
    degraded: str = ""
    timing: str = ""


async def send_all(
    url: str, bodies: Sequence[bytes], due_s: NDArray[np.float64], headers: dict[str, str], patience_s: float
) -> list[Outcome]:
    """Send a request at each due time, bodies in turn -> outcomes in that order.

    Waits `patience_s` after the last one for answers that are still missing; those count as LOST.
    """
    parts = urlsplit(url)
    host, port, path = parts.hostname or "127.0.0.1", parts.port or 80, parts.path
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json"]
    head = "\r\n".join([*lines, *(f"{k}: {v}" for k, v in headers.items())])
    requests = [f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]
    pool = _Pool(host, port)
    gc.collect()  # before the start is set: it may take a while
    outcomes = [Outcome(due) for due in due_s.tolist()]
    loop = asyncio.get_running_loop()
    start = loop.time() + 0.1 + len(outcomes) / _NOTED_A_SECOND
    for index, outcome in enumerate(outcomes):
        loop.call_at(start + outcome.due_s, pool.send, requests[index % len(requests)], outcome, start)
    with _unlooked_at():
        await asyncio.sleep(max(0.0, start + float(due_s[-1]) - loop.time()) + 0.01)
        deadline = loop.time() + patience_s
        while pool.busy and loop.time() < deadline:  # noqa: ASYNC110  # at the end of a run there is no hurry
            await asyncio.sleep(0.01)
    pool.close()
    await asyncio.sleep(0)
    return outcomes


@contextmanager
def _unlooked_at() -> Iterator[None]:
    """Keep the garbage collector from what there is: a minute's requests take it a tenth of a second.

    That would be the generator's stall, and look like the service's.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Pool:
    """Connections to one service; idle ones are used before new ones are opened."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()
        self._opening = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> int:
        return self._opening + sum(c.outcome is not None for c in self._all)

    def send(self, request: bytes, outcome: Outcome, start: float) -> None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection.ask(request, outcome, start)
        if len(self._all) + self._opening >= _MOST_CONNECTIONS:
            return None
        self._opening += 1
        task = asyncio.create_task(self._open(request, outcome, start))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return None

    async def _open(self, request: bytes, outcome: Outcome, start: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: _Connection(self), self._host, self._port)
        except OSError:
            outcome.status, outcome.done_s = LOST, loop.time() - start
            return
        finally:
            self._opening -= 1
        self._all.add(connection)
        connection.ask(request, outcome, start)

    def free(self, connection: _Connection) -> None:
        self._idle.append(connection)

    def lost(self, connection: _Connection) -> None:
        self._all.discard(connection)

    def close(self) -> None:
        for connection in list(self._all):
            connection.close()


class _Connection(asyncio.Protocol):
    """One connection with at most one request under way; also what httptools calls back."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._transport: Any = None  # uvloop's are not asyncio's
        self._start = 0.0
        self.outcome: Outcome | None = None
        self.usable = True
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def ask(self, request: bytes, outcome: Outcome, start: float) -> None:
        self.outcome, self._start = outcome, start
        self._parser = httptools.HttpResponseParser(self)
        outcome.sent_s = self._loop.time() - start
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self.outcome is not None:
            self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self.outcome is not None
        match name.lower():
            case b"server-timing":
                self.outcome.timing = value.decode()
            case b"x-degraded":
                self.outcome.degraded = value.decode()
            case b"connection":
                self.usable = value.lower() != b"close"

    def on_message_complete(self) -> None:
        outcome, self.outcome = self.outcome, None
        assert outcome is not None
        outcome.status, outcome.done_s = self._parser.get_status_code(), self._loop.time() - self._start
        if self.usable:
            self._pool.free(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        self._pool.lost(self)
        if self.outcome is not None:
            self.outcome.status, self.outcome.done_s = LOST, self._loop.time() - self._start
            self.outcome = None

    def close(self) -> None:
        if self.outcome is not None:
            self.outcome.status, self.outcome = LOST, None
        if self._transport is not None:
            self._transport.abort()
