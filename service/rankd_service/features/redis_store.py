"""Feature rows in Redis or Valkey: a request is one MGET, and each MGET has an owner of its own.

Whoever waits for a read leaves at the end of its budget; the link stays, drains the reply and is free again,
so that a slow or frozen server costs no connection and no reply meets the wrong request. Once a server is
known to be down or silent, reads fail at once but for one attempt a step (`breaker.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any

from rankd_service.errors import StoreErrorKind, StoreUnavailable
from rankd_service.features.breaker import Breaker
from rankd_service.features.link import Link, OpenLink
from rankd_service.features.redis_connection import FAILURES, kind_of, links_to, pack, shown_url

__all__ = ["RedisStore"]

_ROW_TYPES = frozenset({bytes, NoneType})
_CLOSED = "the store is closed"

Check = Callable[[Any], bool]


class RedisStore:
    """Reads rows with detached MGETs over at most `connections` links, one exchange on each at a time.

    Made and used while the server is down: links are opened when needed. At most `max_outstanding` reads
    exist at a time, abandoned ones included; one more fails at once as BUSY. An exchange that takes longer
    than `read_timeout_s` ends its link. `on_error` gets the kind of every read that fails; `open_link` is by
    default what suits the address.
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
        open_link: OpenLink | None = None,
    ) -> None:
        """Check the address without connecting. Raises StartupFailed where it is none."""
        self._url = shown_url(url)
        self._open_link = open_link or links_to(url, connect_timeout_s)
        self._most_links, self._read_timeout_s = connections, read_timeout_s
        self._max_outstanding = max_outstanding
        self._on_error, self._clock = on_error, clock
        self._breaker = Breaker()
        self._links: set[Link] = set()
        self._idle: list[Link] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._queue: deque[_Read] = deque()
        self._reads: set[_Read] = set()
        self._closed = False
        self._opened = 0

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
        return self._opened

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
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        self._queue.clear()
        for read in list(self._reads):
            self._settle(read, self._error(StoreErrorKind.REFUSED, _CLOSED))
        await asyncio.gather(*(link.close() for link in self._links))

    async def _ask(self, command: bytes, check: Check, budget_s: float) -> Any:
        if self._closed:
            raise self._failed(self._error(StoreErrorKind.REFUSED, _CLOSED))
        if budget_s <= 0:
            raise self._failed(self._error(StoreErrorKind.TIMEOUT, "no budget left to ask"))
        if len(self._reads) >= self._max_outstanding:
            raise self._failed(self._error(StoreErrorKind.BUSY, f"{len(self._reads)} reads are outstanding"))
        loop = asyncio.get_running_loop()
        read = _Read(command, check, loop.create_future(), self._clock())
        self._reads.add(read)
        self._begin(read)
        leaving = loop.call_later(budget_s, read.leave)
        try:
            await read.answered
        finally:
            leaving.cancel()
            read.abandoned = not read.settled
        if read.abandoned:
            late = f"no answer within {1000 * budget_s:.0f} ms"
            self._breaker.waited(read.began, self._clock(), late)
            raise self._failed(self._error(StoreErrorKind.TIMEOUT, late))
        if read.failure is not None:
            raise self._failed(read.failure)
        return read.reply

    def _failed(self, error: StoreUnavailable) -> StoreUnavailable:
        if self._on_error is not None:
            self._on_error(error.kind)
        return error

    def _error(self, kind: StoreErrorKind, message: str) -> StoreUnavailable:
        return StoreUnavailable(kind, f"{self._url}: {kind.value}: {message}")

    def _begin(self, read: _Read) -> None:
        """Send a read on an idle link, or open one for it, or let it queue; unless the server is down."""
        refusal = self._breaker.refusal(self._clock())
        if refusal is not None:
            return self._settle(read, self._error(*refusal))
        while self._idle:
            link = self._idle.pop()
            if link.open:
                return self._exchange(link, read, fresh=False)
            self._links.discard(link)
        if len(self._links) + len(self._opening) < self._most_links:
            return self._connect(read)
        return self._queue.append(read)

    def _connect(self, read: _Read) -> None:
        task = asyncio.create_task(self._open(read))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, read: _Read) -> None:
        began = self._clock()
        try:
            link = await self._open_link()
        except FAILURES as error:
            self._settle(read, self._noted(error, began, connecting=True))
            return self._serve_queue()
        self._opened += 1
        self._links.add(link)
        if read.abandoned:
            self._reads.discard(read)
            return self._free(link)
        return self._exchange(link, read, fresh=True)

    def _exchange(self, link: Link, read: _Read, fresh: bool) -> None:
        began = self._clock()
        overdue = asyncio.get_running_loop().call_later(
            self._read_timeout_s, link.abort, TimeoutError(f"no answer within {self._read_timeout_s:g} s")
        )

        def done(reply: Any, error: Exception | None) -> None:
            overdue.cancel()
            if error is None and not read.check(reply):
                error = ValueError("a reply that is not the one asked for")
                link.abort(error)
            self._finish(read, reply, error, began, fresh)
            if link.open:
                self._free(link)
            else:
                self._links.discard(link)
                self._serve_queue()

        try:
            link.ask(read.command, done)
        except FAILURES as error:  # it was lost before its use
            link.abort(error)
            done(None, error)

    def _finish(self, read: _Read, reply: Any, error: Exception | None, began: float, fresh: bool) -> None:
        if error is None:
            read.reply = reply
            self._breaker.passed()
            return self._settle(read, None)
        failure = self._noted(error, began, connecting=False)
        # The server may close an idle link just as it is used: one more try, on a fresh one.
        if failure.kind is StoreErrorKind.RESET and not (fresh or read.abandoned):
            return self._connect(read)
        return self._settle(read, failure)

    def _free(self, link: Link) -> None:
        """Use a link for the next read that somebody still waits for; one given up is not begun."""
        while self._queue:
            read = self._queue.popleft()
            if not read.abandoned:
                return self._exchange(link, read, fresh=False)
            self._reads.discard(read)
        return self._idle.append(link)

    def _serve_queue(self) -> None:
        """Go on with those that waited for a link which is gone."""
        waiting, self._queue = self._queue, deque()
        for read in waiting:
            if read.abandoned:
                self._reads.discard(read)
            else:
                self._begin(read)

    def _settle(self, read: _Read, failure: StoreUnavailable | None) -> None:
        if read.settled:  # the store was closed meanwhile
            return
        read.failure, read.settled = failure, True
        self._reads.discard(read)
        read.leave()

    def _noted(self, error: Exception, began: float, connecting: bool) -> StoreUnavailable:
        """Map an error, and open the breaker where trying again at once would make it worse."""
        kind, message = kind_of(error, connecting), str(error) or type(error).__name__
        if connecting or kind is StoreErrorKind.LOADING:
            self._breaker.failed(began, self._clock(), (kind, message))
        return self._error(kind, message)


class _Read:
    """One command under way, whoever waits for it, and what became of it."""

    __slots__ = ("abandoned", "answered", "began", "check", "command", "failure", "reply", "settled")

    def __init__(self, command: bytes, check: Check, answered: asyncio.Future[None], began: float) -> None:
        self.command, self.check, self.answered, self.began = command, check, answered, began
        self.abandoned = self.settled = False
        self.reply: Any = None
        self.failure: StoreUnavailable | None = None

    def leave(self) -> None:
        """Let the one who waits go on."""
        if not self.answered.done():
            self.answered.set_result(None)
