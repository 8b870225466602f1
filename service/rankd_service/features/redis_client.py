"""Asks one Redis or Valkey server; each question has an owner of its own.

Whoever waits for an answer leaves at the end of its budget; the link stays, drains the reply and is free
again, so that a slow or frozen server costs no connection and no reply meets the wrong request. Once a server
is known to be down or silent, questions fail at once but for one attempt a step (`breaker.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from rankd_service.errors import StoreErrorKind, StoreUnavailable
from rankd_service.features.breaker import Breaker
from rankd_service.features.link import Link, OpenLink
from rankd_service.features.redis_connection import links_to, pack
from rankd_service.features.redis_failures import FAILURES, kind_of
from rankd_service.features.store_address import shown_url

__all__ = ["Question", "RedisClient"]

_CLOSED = "the store is closed"

Check = Callable[[Any], bool]
"""Tells whether a reply is of the kind that was asked for; else its link is closed."""


class RedisClient:
    """Asks over at most `connections` links, one exchange on each at a time.

    Made and used while the server is down: links are opened when needed. At most `max_outstanding` questions
    exist at a time, abandoned ones included; one more fails at once as BUSY. An exchange that takes longer
    than `read_timeout_s` ends its link. `on_error` gets the kind of every question that fails; `open_link` is
    by default what suits the address.
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
        self._queue: deque[Question] = deque()
        self._questions: set[Question] = set()
        self._closed = False
        self._opened = 0

    def __repr__(self) -> str:
        return f"RedisClient({self._url})"

    @property
    def outstanding(self) -> int:
        """Reads that have not ended, abandoned ones included."""
        return len(self._questions)

    @property
    def abandoned(self) -> int:
        """Reads that nobody waits for any more."""
        # Copied first: metrics are also read from a thread beside the loop.
        return sum(question.abandoned for question in tuple(self._questions))

    @property
    def connections_opened(self) -> int:
        """Connections opened so far; it stays put while a server is merely slow."""
        return self._opened

    async def ping(self, budget_s: float) -> bool:
        """Tell whether the server answered within the budget."""
        try:
            await self.ask(pack("PING"), lambda reply: bool(reply == b"PONG"), budget_s)
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
        for question in list(self._questions):
            self._settle(question, self._error(StoreErrorKind.REFUSED, _CLOSED))
        await asyncio.gather(*(link.close() for link in self._links))

    async def retire(self) -> None:
        """Close once nobody waits for a question any more."""
        waiting = [question.answered for question in self._questions if not question.answered.done()]
        if waiting:
            await asyncio.wait(waiting)
        await self.close()

    async def ask(self, commands: bytes, check: Check, budget_s: float, replies: int = 1) -> Any:
        """Ask and wait -> the reply, or the list of several. Raises StoreUnavailable.

        Commands are sent again where the link was lost meanwhile, so they must be such as may be. Where
        several replies are asked for and the last one is an error, it is everybody's.
        """
        return await self.answer(self.begin(commands, check, budget_s, replies))

    def begin(self, commands: bytes, check: Check, budget_s: float, replies: int = 1) -> Question:
        """Ask without waiting; whoever begins a question sees to it that it is waited for or left."""
        loop = asyncio.get_running_loop()
        question = Question(commands, replies, check, loop.create_future(), self._clock(), budget_s)
        if self._closed:
            self._settle(question, self._error(StoreErrorKind.REFUSED, _CLOSED))
        elif budget_s <= 0:
            self._settle(question, self._error(StoreErrorKind.TIMEOUT, "no budget left to ask"))
        elif len(self._questions) >= self._max_outstanding:
            busy = f"{len(self._questions)} reads are outstanding"
            self._settle(question, self._error(StoreErrorKind.BUSY, busy))
        else:
            self._questions.add(question)
            self._begin(question)
            question.leaving = loop.call_later(budget_s, question.leave)
        return question

    async def answer(self, question: Question) -> Any:
        """Wait for what was begun, to the end of its budget. Raises StoreUnavailable."""
        try:
            await question.answered
        finally:
            question.abandon()
        if question.abandoned:
            late = f"no answer within {1000 * question.budget_s:.0f} ms"
            self._breaker.waited(question.began, self._clock(), late)
            raise self._failed(self._error(StoreErrorKind.TIMEOUT, late))
        if question.failure is not None:
            raise self._failed(question.failure)
        return question.reply

    def _failed(self, error: StoreUnavailable) -> StoreUnavailable:
        if self._on_error is not None:
            self._on_error(error.kind)
        return error

    def _error(self, kind: StoreErrorKind, message: str) -> StoreUnavailable:
        return StoreUnavailable(kind, f"{self._url}: {kind.value}: {message}")

    def _begin(self, question: Question) -> None:
        """Send a question on an idle link, or open one for it, or let it queue; unless the server is down."""
        refusal = self._breaker.refusal(self._clock())
        if refusal is not None:
            return self._settle(question, self._error(*refusal))
        while self._idle:
            link = self._idle.pop()
            if link.open:
                return self._exchange(link, question, fresh=False)
            self._links.discard(link)
        if len(self._links) + len(self._opening) < self._most_links:
            return self._connect(question)
        return self._queue.append(question)

    def _connect(self, question: Question) -> None:
        task = asyncio.create_task(self._open(question))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, question: Question) -> None:
        began = self._clock()
        try:
            link = await self._open_link()
        except FAILURES as error:
            self._settle(question, self._noted(error, began, connecting=True))
            return self._serve_queue()
        self._opened += 1
        self._links.add(link)
        if question.abandoned:
            self._questions.discard(question)
            return self._free(link)
        return self._exchange(link, question, fresh=True)

    def _exchange(self, link: Link, question: Question, fresh: bool) -> None:
        began = self._clock()
        overdue = asyncio.get_running_loop().call_later(
            self._read_timeout_s, link.abort, TimeoutError(f"no answer within {self._read_timeout_s:g} s")
        )

        def done(reply: Any, error: Exception | None) -> None:
            overdue.cancel()
            if question.replies > 1 and error is None and isinstance(reply[-1], Exception):
                error = reply[-1]  # such as LOADING: whoever says so to the last says so to all
            if error is None and not question.check(reply):
                error = ValueError("a reply that is not the one asked for")
                link.abort(error)
            self._finish(question, reply, error, began, fresh)
            if link.open:
                self._free(link)
            else:
                self._links.discard(link)
                self._serve_queue()

        try:
            link.ask(question.commands, done, question.replies)
        except FAILURES as error:  # it was lost before its use
            link.abort(error)
            done(None, error)

    def _finish(
        self, question: Question, reply: Any, error: Exception | None, began: float, fresh: bool
    ) -> None:
        if error is None:
            question.reply = reply
            self._breaker.passed()
            return self._settle(question, None)
        failure = self._noted(error, began, connecting=False)
        # The server may close an idle link just as it is used: one more try, on a fresh one.
        if failure.kind is StoreErrorKind.RESET and not (fresh or question.abandoned):
            return self._connect(question)
        return self._settle(question, failure)

    def _free(self, link: Link) -> None:
        """Use a link for the next question that somebody still waits for; one given up is not begun."""
        while self._queue:
            question = self._queue.popleft()
            if not question.abandoned:
                return self._exchange(link, question, fresh=False)
            self._questions.discard(question)
        return self._idle.append(link)

    def _serve_queue(self) -> None:
        """Go on with those that waited for a link which is gone."""
        waiting, self._queue = self._queue, deque()
        for question in waiting:
            if question.abandoned:
                self._questions.discard(question)
            else:
                self._begin(question)

    def _settle(self, question: Question, failure: StoreUnavailable | None) -> None:
        if question.settled:  # the store was closed meanwhile
            return
        question.failure, question.settled = failure, True
        self._questions.discard(question)
        question.leave()

    def _noted(self, error: Exception, began: float, connecting: bool) -> StoreUnavailable:
        """Map an error, and open the breaker where trying again at once would make it worse."""
        kind, message = kind_of(error, connecting), str(error) or type(error).__name__
        if connecting or kind is StoreErrorKind.LOADING:
            self._breaker.failed(began, self._clock(), (kind, message))
        return self._error(kind, message)


class Question:
    """Commands under way, whoever waits for their replies, and what became of them."""

    __slots__ = (
        *("abandoned", "answered", "began", "budget_s", "check", "commands", "failure", "leaving", "replies"),
        *("reply", "settled"),
    )

    def __init__(
        self,
        commands: bytes,
        replies: int,
        check: Check,
        answered: asyncio.Future[None],
        began: float,
        budget_s: float,
    ) -> None:
        self.commands, self.replies, self.check = commands, replies, check
        self.answered, self.began, self.budget_s = answered, began, budget_s
        self.abandoned = self.settled = False
        self.leaving: asyncio.TimerHandle | None = None
        self.reply: Any = None
        self.failure: StoreUnavailable | None = None

    def leave(self) -> None:
        """Let the one who waits go on."""
        if not self.answered.done():
            self.answered.set_result(None)

    def abandon(self) -> None:
        """Note that nobody waits any more; what was sent is drained all the same."""
        if self.leaving is not None:
            self.leaving.cancel()
        self.abandoned = not self.settled
