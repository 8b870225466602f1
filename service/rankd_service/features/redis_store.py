"""Feature rows in Redis or Valkey: a request is one MGET, and each MGET is owned by a task of its own.

Whoever waits for a read leaves at the end of its budget; the task stays, drains the reply and puts the
connection back, so that a slow or frozen server costs no connection and no reply meets the wrong request.
While the server is down one attempt a step is let through (`reconnect.py`) and other reads fail at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any

from rankd_service.errors import StoreErrorKind, StoreUnavailable
from rankd_service.features.reconnect import ReconnectGate
from rankd_service.features.redis_connection import (
    FAILURES,
    AbstractConnection,
    Connector,
    is_dirty,
    is_reply,
    kind_of,
    pack,
    shown_url,
)

__all__ = ["RedisStore"]

_ROW_TYPES = frozenset({bytes, NoneType})

_SERVER_DOWN = frozenset({StoreErrorKind.LOADING, StoreErrorKind.AUTH})

Check = Callable[[Any], bool]


class RedisStore:
    """Reads rows with detached MGETs over at most `connections` connections.

    Made and used while the server is down: connections are opened when needed. At most `max_outstanding`
    reads exist at a time, abandoned ones included; one more fails at once as BUSY. An exchange that takes
    longer than `read_timeout_s` ends its connection. `on_error` gets the kind of every read that fails.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int,
        connect_timeout_s: float,
        read_timeout_s: float,
        max_outstanding: int,
        on_error: Callable[[StoreErrorKind], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Check the address without connecting. Raises StartupFailed where it is none."""
        self._url = shown_url(url)
        self._connector = Connector(url, connect_timeout_s)
        self._read_timeout_s = read_timeout_s
        self._max_outstanding = max_outstanding
        self._on_error = on_error
        self._clock = clock
        self._gate = ReconnectGate()
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[AbstractConnection] = []
        self._reads: set[_Read] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"RedisStore({self._url})"

    @property
    def outstanding(self) -> int:
        """Reads that have not ended, abandoned ones included."""
        return len(self._reads)

    @property
    def abandoned(self) -> int:
        """Reads that nobody waits for any more."""
        return sum(read.abandoned for read in self._reads)

    @property
    def connections_opened(self) -> int:
        """Connections opened so far; it stays put while a server is merely slow."""
        return self._connector.opened

    async def read(self, keys: Sequence[str], budget_s: float) -> list[bytes | None]:
        """Return the values under all keys, in their order. Raises StoreUnavailable."""
        if not keys:
            return []

        def rows(reply: Any) -> bool:
            return type(reply) is list and len(reply) == len(keys) and _ROW_TYPES.issuperset(map(type, reply))

        found: list[bytes | None] = await self._ask(pack("MGET", *keys), rows, budget_s)
        return found

    async def ping(self, budget_s: float) -> bool:
        """Tell whether the server answered within the budget."""
        try:
            await self._ask(pack("PING"), lambda reply: bool(reply == b"PONG"), budget_s)
        except StoreUnavailable:
            return False
        return True

    async def close(self) -> None:
        """End outstanding reads and close every connection. Reads fail afterwards."""
        self._closed = True
        tasks = [read.task for read in self._reads if read.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self._idle:
            await self._idle.pop().disconnect()

    async def _ask(self, command: bytes, check: Check, budget_s: float) -> Any:
        if self._closed:
            raise self._failed(self._error(StoreErrorKind.REFUSED, "the store is closed"))
        if budget_s <= 0:
            raise self._failed(self._error(StoreErrorKind.TIMEOUT, "no budget left to ask"))
        if len(self._reads) >= self._max_outstanding:
            raise self._failed(self._error(StoreErrorKind.BUSY, f"{len(self._reads)} reads are outstanding"))
        read = _Read(command, check)
        self._reads.add(read)
        read.task = asyncio.create_task(self._run(read))
        read.task.add_done_callback(lambda _: self._reads.discard(read))
        try:
            await asyncio.wait((read.task,), timeout=budget_s)
        finally:
            read.abandoned = not read.task.done()
        if read.abandoned:
            late = f"no answer within {1000 * budget_s:.0f} ms"
            raise self._failed(self._error(StoreErrorKind.TIMEOUT, late))
        if read.task.cancelled():
            raise self._failed(self._error(StoreErrorKind.REFUSED, "the store is closed"))
        if read.failure is not None:
            raise self._failed(read.failure)
        read.task.result()  # raises what nobody foresaw
        return read.reply

    def _failed(self, error: StoreUnavailable) -> StoreUnavailable:
        if self._on_error is not None:
            self._on_error(error.kind)
        return error

    def _error(self, kind: StoreErrorKind, message: str) -> StoreUnavailable:
        return StoreUnavailable(kind, f"{self._url}: {kind.value}: {message}")

    async def _run(self, read: _Read) -> None:
        try:
            async with self._slots:
                # A read that was given up in the queue is not begun.
                if not read.abandoned:
                    await self._exchange(read)
        except StoreUnavailable as failure:
            read.failure = failure

    async def _exchange(self, read: _Read) -> None:
        connection = await self._take_idle()
        if connection is not None:
            try:
                await self._talk(connection, read)
                return
            except StoreUnavailable as failure:
                # The server may close an idle connection just as it is used: one more try, on a fresh one.
                if failure.kind is not StoreErrorKind.RESET or read.abandoned:
                    raise
        connection = await self._connect()
        if read.abandoned:
            self._idle.append(connection)
        else:
            await self._talk(connection, read)

    async def _take_idle(self) -> AbstractConnection | None:
        """Return a connection on which nothing waits to be read: no end of it, no reply too many."""
        while self._idle:
            connection = self._idle.pop()
            if not await is_dirty(connection):
                return connection
            await connection.disconnect(nowait=True)
        return None

    async def _connect(self) -> AbstractConnection:
        started = self._clock()
        refusal = self._gate.refusal(started)
        if refusal is not None:
            raise self._error(*refusal)
        try:
            return await self._connector.connect()
        except FAILURES as error:
            raise self._noted(error, started, connecting=True) from error

    async def _talk(self, connection: AbstractConnection, read: _Read) -> None:
        started, keep = self._clock(), False
        try:
            async with asyncio.timeout(self._read_timeout_s):
                await connection.send_packed_command(read.command, check_health=False)
                reply = await connection.read_response()
            if not read.check(reply):
                raise ValueError("a reply that is not the one asked for")
            read.reply, keep = reply, True
            self._gate.passed()
        except FAILURES as error:
            keep = is_reply(error) and connection.is_connected
            raise self._noted(error, started) from error
        finally:
            if keep:
                self._idle.append(connection)
            else:
                await connection.disconnect(nowait=True)

    def _noted(self, error: Exception, started: float, connecting: bool = False) -> StoreUnavailable:
        """Map an error, and close the gate where trying again at once would make it worse."""
        kind, message = kind_of(error, connecting), str(error) or type(error).__name__
        if connecting or kind in _SERVER_DOWN:
            self._gate.failed(started, self._clock(), (kind, message))
        return self._error(kind, message)


class _Read:
    """One command under way, its owner and what became of it."""

    __slots__ = ("abandoned", "check", "command", "failure", "reply", "task")

    def __init__(self, command: bytes, check: Check) -> None:
        self.command, self.check = command, check
        self.abandoned = False
        self.task: asyncio.Task[None] | None = None
        self.reply: Any = None
        self.failure: StoreUnavailable | None = None
