"""How a Redis or Valkey server is reached.

None of redis-py's own waits and retries is left to its default: whoever asks says how long. Only the files
whose names begin with `redis_` import redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import hiredis
import redis
from redis import exceptions as errors
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry as BlockingRetry

from rankd_service.errors import StartupFailed, StoreUnavailable
from rankd_service.features.link import Done, Link, OpenLink
from rankd_service.features.redis_failures import FAILURES, kind_of
from rankd_service.features.redis_sentinel import MasterFinder
from rankd_service.features.store_address import StoreKind, parse_address, shown_url
from rankd_service.features.wire_link import WireAddress, open_wire_link

__all__ = [
    "AbstractConnection",
    "BlockingConnection",
    "Connector",
    "RedisPyLink",
    "key_slot",
    "links_to",
    "pack",
]


def links_to(url: str, timeout_s: float) -> OpenLink:
    """Return what opens links to an address, each within `timeout_s`.

    Our own links where a plain socket will do, redis-py's for TLS and for options in the address. Where
    sentinels know the server, they are asked for each link anew. Raises StartupFailed for no address.
    """
    connector = Connector(url, timeout_s)
    if connector.finder is not None:
        return _links_by_sentinel(connector.finder, timeout_s)
    address = _plain(url)

    async def wire() -> Link:
        assert address is not None
        async with asyncio.timeout(timeout_s):
            return await open_wire_link(address)

    async def redis_py() -> Link:
        return RedisPyLink(await connector.connect())

    return redis_py if address is None else wire


def _links_by_sentinel(finder: MasterFinder, timeout_s: float) -> OpenLink:
    openers: dict[str, OpenLink] = {}

    async def found() -> Link:
        url = await finder.find()
        if url not in openers:  # the last one's only: a failover changes it
            openers.clear()
            try:
                openers[url] = links_to(url, timeout_s)
            except StartupFailed as error:  # what sentinels say is no mistake of whoever started us
                raise errors.ConnectionError(str(error)) from error
        return await openers[url]()

    return found


def _plain(url: str) -> WireAddress | None:
    """Read an address that needs nothing but a socket; None where it needs more."""
    if urlsplit(url).scheme not in {"redis", "unix"} or urlsplit(url).query:
        return None
    options = parse_url(url)
    hello = [pack("PING")]
    if options.get("db"):
        hello.insert(0, pack("SELECT", options["db"]))
    if options.get("password"):
        user = [options["username"]] if options.get("username") else []
        hello.insert(0, pack("AUTH", *user, options["password"]))
    path = options.get("path")
    return WireAddress(options.get("host", "localhost"), options.get("port", 6379), path, tuple(hello))


class Connector:
    """Opens connections to one address, each within `timeout_s`; `finder` asks sentinels where it leads."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """Check the address without connecting. Raises StartupFailed where it is none."""
        address = parse_address(url)
        by_sentinel = address.kind is StoreKind.SENTINEL
        self.finder = MasterFinder(address, timeout_s) if by_sentinel else None
        self._timeout_s = timeout_s
        try:
            options: dict[str, Any] = {**parse_url(address.of_node(address.nodes[0]) if by_sentinel else url)}
            self._kind: Callable[..., AbstractConnection] = options.pop("connection_class", Connection)
            self._options = {
                **options,
                "socket_connect_timeout": timeout_s,
                "socket_timeout": None,  # whoever asks bounds each exchange as a whole
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
        if self.finder is not None:
            url = await self.finder.find()
            try:
                found = Connector(url, self._timeout_s)
            except StartupFailed as error:
                raise errors.ConnectionError(str(error)) from error
            return await found.connect()
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
        return connection


class BlockingConnection:
    """One blocking connection for bulk work: commands are sent ahead of the replies that are awaited."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """Connect. Raises StartupFailed where the address is none, StoreUnavailable where nobody answers."""
        self._url = shown_url(url)
        address = parse_address(url)
        if address.kind is StoreKind.SENTINEL:
            url = self._attempt(MasterFinder(address, timeout_s).find_blocking, connecting=True)
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
        except FAILURES as error:
            kind = kind_of(error, connecting)
            raise StoreUnavailable(kind, f"{self._url}: {kind.value}: {error}") from error


class RedisPyLink:
    """A link over a connection of redis-py, for what our own does not speak. Each exchange is a task."""

    def __init__(self, connection: AbstractConnection) -> None:
        """Take the connection over."""
        self._connection = connection
        self._task: asyncio.Task[None] | None = None
        self._reason: Exception | None = None
        self.open = True

    def ask(self, commands: bytes, done: Done, replies: int = 1) -> None:
        """Send packed commands that have so many replies; `done` is called once, later."""
        self._task = asyncio.create_task(self._exchange(commands, done, replies))

    def abort(self, reason: Exception) -> None:
        """End the connection; an exchange under way is done, with this reason."""
        if self._reason is not None:
            return
        self.open, self._reason = False, reason
        if self._task is not None:
            self._task.cancel()
        else:
            self._task = asyncio.create_task(self._connection.disconnect(nowait=True))

    async def close(self) -> None:
        """End the connection and wait until it is gone."""
        self.abort(ConnectionAbortedError("closed"))
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def _exchange(self, commands: bytes, done: Done, replies: int) -> None:
        reply: Any = None
        failure: Exception | None = None
        try:
            if await _is_dirty(self._connection):
                raise ConnectionResetError("the idle connection was closed, or held a reply too many")
            await self._connection.send_packed_command(commands, check_health=False)
            if replies == 1:
                reply = await self._connection.read_response()
            else:
                reply = [await self._reply() for _ in range(replies)]
        except FAILURES as error:
            failure = error
            self.open = isinstance(error, errors.ResponseError) and self._connection.is_connected
        except asyncio.CancelledError:
            failure = self._reason or ConnectionAbortedError("the store is closed")
            self.open = False
        if not self.open:
            await self._connection.disconnect(nowait=True)
        self._task = None
        done(reply, failure)

    async def _reply(self) -> Any:
        """Read one of several replies; an error the server answered with is one of them."""
        try:
            return await self._connection.read_response()
        except errors.ResponseError as error:
            if not self._connection.is_connected:
                raise
            return error


async def _is_dirty(connection: AbstractConnection) -> bool:
    """Tell whether an idle connection holds something to read: its end, or a reply nobody asked for."""
    # The method was renamed in redis-py 8.
    look = getattr(connection, "can_read", None) or connection.can_read_destructive
    try:
        return bool(await look())
    except (errors.RedisError, OSError):
        return True


def _no_address(url: str) -> StartupFailed:
    expected = "redis://user:password@host:6379/0, rediss:// for TLS or unix:// for a socket"
    return StartupFailed(f"{shown_url(url)}: not an address of a Redis server: expected {expected}")


def pack(*command: str | bytes | int) -> bytes:
    """Return a command in the protocol's bytes; hiredis is ten times as fast at it as redis-py."""
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # the stub knows tuples of one
    return packed
