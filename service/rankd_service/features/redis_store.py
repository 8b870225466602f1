"""Feature rows in Redis or Valkey: a request is one MGET, and each MGET is owned by a task of its own.

Whoever waits for a read leaves at the end of its budget; the task stays, drains the reply and puts the
connection back, so that a slow or frozen server costs no connection and no reply meets the wrong request.
While the server is down one attempt a step is let through (`reconnect.py`) and other reads fail at once.
This is the one file of the service that imports redis.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from types import NoneType
from typing import Any
from urllib.parse import urlsplit

import hiredis
import redis
from redis import exceptions as errors
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.retry import Retry as BlockingRetry

from rankd_service.errors import StartupFailed, StoreErrorKind, StoreUnavailable
from rankd_service.features.reconnect import ReconnectGate

__all__ = ["BlockingConnection", "RedisStore", "pack", "shown_url"]

_ROW_TYPES = frozenset({bytes, NoneType})

# ValueError and TypeError: a parser that is fed garbage. RuntimeError: uvloop, where a connection was lost
# before its use.
_FAILURES = (errors.RedisError, OSError, ValueError, TypeError, RuntimeError)
_KINDS: tuple[tuple[tuple[type[Exception], ...], StoreErrorKind], ...] = (
    ((errors.AuthenticationError, errors.AuthorizationError, errors.NoPermissionError), StoreErrorKind.AUTH),
    ((errors.AuthenticationWrongNumberOfArgsError,), StoreErrorKind.AUTH),
    ((errors.BusyLoadingError, errors.MasterDownError), StoreErrorKind.LOADING),
    ((errors.InvalidResponse, ValueError, TypeError), StoreErrorKind.PROTOCOL),
    ((errors.ResponseError,), StoreErrorKind.REPLY),
    ((errors.TimeoutError, TimeoutError), StoreErrorKind.TIMEOUT),
)
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
        self._connector = _Connector(url, connect_timeout_s)
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
            if not await _is_dirty(connection):
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
        except _FAILURES as error:
            raise self._noted(error, started, connecting=True) from error

    async def _talk(self, connection: AbstractConnection, read: _Read) -> None:
        started, keep = self._clock(), False
        try:
            async with asyncio.timeout(self._read_timeout_s):
                await connection.send_packed_command(read.command, check_health=False)
                reply = await connection.read_response()
            if not read.check(reply):
                raise errors.InvalidResponse("a reply that is not the one asked for")
            read.reply, keep = reply, True
            self._gate.passed()
        except _FAILURES as error:
            keep = isinstance(error, errors.ResponseError) and connection.is_connected
            raise self._noted(error, started) from error
        finally:
            if keep:
                self._idle.append(connection)
            else:
                await connection.disconnect(nowait=True)

    def _noted(self, error: Exception, started: float, connecting: bool = False) -> StoreUnavailable:
        """Map an error, and close the gate where trying again at once would make it worse."""
        kind, message = _kind_of(error, connecting), str(error) or type(error).__name__
        if connecting or kind in _SERVER_DOWN:
            self._gate.failed(started, self._clock(), (kind, message))
        return self._error(kind, message)


class BlockingConnection:
    """One blocking connection for bulk work: commands are sent ahead of the replies that are awaited."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """Connect. Raises StartupFailed where the address is none, StoreUnavailable where nobody answers."""
        self._url = shown_url(url)
        try:
            parse: Callable[[str], dict[str, Any]] = redis.connection.parse_url
            options = parse(url)
            kind: Any = options.pop("connection_class", redis.connection.Connection)
            options |= {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
            options |= {"retry": BlockingRetry(NoBackoff(), 0), "decode_responses": False, "protocol": 2}
            self._connection = kind(**options)
        except (ValueError, TypeError, errors.RedisError) as error:
            raise _no_address(url) from error
        self._attempt(self._connection.connect, connecting=True)

    def send(self, command: bytes) -> None:
        """Send packed commands. Raises StoreUnavailable."""
        self._attempt(lambda: self._connection.send_packed_command([command], check_health=False))

    def receive(self) -> Any:
        """Return the next reply. Raises StoreUnavailable."""
        return self._attempt(self._connection.read_response)

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()

    def _attempt(self, step: Callable[[], Any], connecting: bool = False) -> Any:
        try:
            return step()
        except _FAILURES as error:
            kind = _kind_of(error, connecting)
            raise StoreUnavailable(kind, f"{self._url}: {kind.value}: {error}") from error


class _Read:
    """One command under way, its owner and what became of it."""

    __slots__ = ("abandoned", "check", "command", "failure", "reply", "task")

    def __init__(self, command: bytes, check: Check) -> None:
        self.command, self.check = command, check
        self.abandoned = False
        self.task: asyncio.Task[None] | None = None
        self.reply: Any = None
        self.failure: StoreUnavailable | None = None


class _Connector:
    """Opens connections to one address; leaves none of redis-py's waits and retries to its defaults."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self.opened = 0
        self._timeout_s = timeout_s
        try:
            options: dict[str, Any] = {**parse_url(url)}
            self._kind: Callable[..., AbstractConnection] = options.pop("connection_class", Connection)
            self._options = {
                **options,
                "socket_connect_timeout": timeout_s,
                "socket_timeout": None,  # RedisStore bounds each exchange as a whole
                "retry": Retry(NoBackoff(), 0),
                "health_check_interval": 0,
                "decode_responses": False,
                "protocol": 2,
            }
            self._pattern = self._kind(**self._options)
        except (ValueError, TypeError, errors.RedisError) as error:
            raise _no_address(url) from error

    async def connect(self) -> AbstractConnection:
        """Open a connection within the timeout, handshake included."""
        connection = self._kind(**self._options)
        if isinstance(connection, SSLConnection) and isinstance(self._pattern, SSLConnection):
            connection.ssl_context = self._pattern.ssl_context  # reads the root certificates once
        handshake: Callable[[], Awaitable[None]] = connection.connect
        try:
            async with asyncio.timeout(self._timeout_s):
                await handshake()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self.opened += 1
        return connection


async def _is_dirty(connection: AbstractConnection) -> bool:
    # The method was renamed in redis-py 8.
    look = getattr(connection, "can_read", None) or connection.can_read_destructive
    try:
        return bool(await look())
    except (errors.RedisError, OSError):
        return True


def _kind_of(error: Exception, connecting: bool) -> StoreErrorKind:
    if isinstance(error, errors.ResponseError) and "unauthenticated" in str(error):
        return StoreErrorKind.AUTH  # how Redis 7.0 refuses a long command of somebody it does not know
    lost = StoreErrorKind.REFUSED if connecting else StoreErrorKind.RESET
    return next((kind for kinds, kind in _KINDS if isinstance(error, kinds)), lost)


def _no_address(url: str) -> StartupFailed:
    expected = "redis://user:password@host:6379/0, rediss:// for TLS or unix:// for a socket"
    return StartupFailed(f"{shown_url(url)}: not an address of a Redis server: expected {expected}")


def pack(*command: str | bytes | int) -> bytes:
    """Return a command in the protocol's bytes; hiredis is ten times as fast at it as redis-py."""
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # the stub knows tuples of one
    return packed


def shown_url(url: str) -> str:
    """Return an address as logs may show it: without user, password and options."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an unreadable address"
    secret = "***@" if "@" in parts.netloc else ""
    return f"{parts.scheme}://{secret}{host}{port}{parts.path}"
