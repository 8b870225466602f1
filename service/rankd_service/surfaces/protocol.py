"""uvicorn's HTTP protocol with the bounds that it lacks: on heads, on connections, on slow senders.

uvicorn would collect headers without end, in memory and in quadratic time; it would wait for a body for as
long as one byte comes now and then; and it would take connections until the process has no descriptor left.
All of that is before any application, so it can only be bounded here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rankd_service.errors import RejectReason
from rankd_service.surfaces.gathering import GatheringTransport
from rankd_service.surfaces.pushback import Pushback

__all__ = ["BoundedProtocol", "Bounds"]

_MOST_SMALL_PIECES, _SMALL = 1000, 16
_LAST_CALL_S = 0.5
_MOST_HEAD_BYTES = 64 << 10
_LENGTH = re.compile(rb"0*[0-9]{1,18}")


Door = Callable[[bytes, bytes, Mapping[bytes, bytes], float], bytes | None]
"""Gets method, path, headers and the seconds that the request may have waited to be read; returns the whole
answer to a request that is not let in."""


def _ignore(reason: RejectReason) -> None:
    """Count nothing."""


def _open_door(method: bytes, path: bytes, headers: Mapping[bytes, bytes], waited_s: float) -> None:
    """Let everybody in."""


def _never() -> bool:
    """Have memory to spare."""
    return False


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many connections there may be, how long a request may take to arrive and an answer to be read.

    `short` says whether there is no memory for what is left of a body, `pushback` for how long a connection
    is not listened to after a request was turned away at the door.
    """

    connections: int = 4096
    receive_s: float = 10.0
    rejected: Callable[[RejectReason], None] = _ignore
    door: Door = _open_door
    short: Callable[[], bool] = _never
    pushback: Pushback = field(default_factory=Pushback)


class BoundedProtocol(HttpToolsProtocol):
    """One connection. What one turn of the loop writes is written in one go."""

    def __init__(self, *arguments: Any, bounds: Bounds | None = None, **named: Any) -> None:
        """Start in front of a head."""
        super().__init__(*arguments, **named)
        self._bounds = bounds or Bounds()
        self._head_bytes: int | None = 0
        self._empty_bytes = 0  # what has come since the head or a piece of the body without being one
        self._refused = False
        self._overdue: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._begun = False
        self._turned_away: bytes | None = None  # the answer to a request that was not let in, once it is here
        self._waited_s = 0.0  # how long what is read now may have been here already
        self._body_bytes = self._body_pieces = 0
        self._body_left = 0  # of a request that asked for another protocol, which the parser stopped at

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, unless there are too many."""
        super().connection_made(GatheringTransport(transport, self.loop))
        if len(self.connections) > self._bounds.connections:
            return self._refuse(
                HTTPStatus.SERVICE_UNAVAILABLE,
                RejectReason.CONNECTIONS,
                "too many connections are open; keep fewer, or ask another instance",
            )
        return self._wait_for_request()

    def pause_writing(self) -> None:
        """Wait for the client to read, but not for ever: until then its answers are held in memory."""
        super().pause_writing()
        self._unread = self.loop.call_later(self._bounds.receive_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Note that the client reads."""
        self._stop_waiting_for_reader()
        super().resume_writing()

    def _stop_waiting_for_reader(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers with the connection."""
        self._stop_waiting()
        self._stop_waiting_for_reader()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End with the process: after the answer that is due, or a moment for a request that is on its way.

        Whoever was let in last has not asked yet, and would lose what it is sending.
        """
        cycle: Any = self.cycle  # None before the first request, whatever uvicorn declares
        if not self._is_over() and (cycle is None or self._begun):
            self.loop.call_later(_LAST_CALL_S, super().shutdown)
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Parse what came; end the connection where a head goes on beyond the limit."""
        while data and not self._is_over():
            data = self._rest_of_body(data) if self._body_left else self._parse(data)

    def _parse(self, data: bytes) -> bytes:
        """Feed the parser -> what it stopped before: it does where a client offers another protocol.

        We go on in HTTP/1.1, as such a client must expect.
        """
        self._unset_keepalive_if_required()
        if self._head_bytes is not None:
            self._head_bytes += len(data)
        self._empty_bytes += len(data)
        rest = b""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            rest = data[offer.args[0] :]
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, RejectReason.MALFORMED, "this is not an HTTP/1.1 request")
        if self._head_bytes is not None and self._head_bytes > _MOST_HEAD_BYTES:
            self._refuse_head()
        elif self._begun and self._head_bytes is None and self._empty_bytes > _MOST_HEAD_BYTES:
            self._refuse_head()  # trailers without end, or one of them
        elif self._begun and self._overdue is None:
            self._wait_for_request()
        return rest

    def _refuse_head(self) -> None:
        self._refuse(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            RejectReason.HEADERS,
            "expected at most 64 KiB of request line and headers",
        )

    def _rest_of_body(self, data: bytes) -> bytes:
        """Take the body that the parser left unread -> what comes after it."""
        body, rest = data[: self._body_left], data[self._body_left :]
        self._body_left -= len(body)
        self.on_body(body)
        if not self._body_left:
            self.on_message_complete()
        return rest

    def on_message_begin(self) -> None:
        """Note that a request has begun to arrive."""
        super().on_message_begin()
        self._begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect the headers of the head; what comes after the body is nobody's to read."""
        if self._head_bytes is not None:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Note that the head has ended, and whether the parser will read the body."""
        self._head_bytes, self._empty_bytes = None, 0
        self._body_bytes = self._body_pieces = 0
        if self.parser.should_upgrade():
            self._body_left = self._announced()
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > _MOST_HEAD_BYTES:
            self._refuse_head()
        if self._is_over():
            return
        if self._is_idle():  # else requests are pipelined, and answers come in their order
            self._turned_away = self._bounds.door(
                self.parser.get_method(), self.url, dict(self.headers), self._waited_s
            )
        if self._turned_away is None:
            self._bounds.pushback.let_in(self.loop.time())
            super().on_headers_complete()
        elif self.expect_100_continue:  # the body is not on its way and need not be
            self.transport.write(self._turned_away)
            self.transport.close()

    def on_body(self, body: bytes) -> None:
        """Pass a piece of the body on, unless the request was refused."""
        self._empty_bytes = 0
        self._body_bytes += len(body)
        self._body_pieces += 1
        if self._turned_away is not None or self._is_over():
            return
        if self._body_pieces > _MOST_SMALL_PIECES and self._body_bytes < self._body_pieces * _SMALL:
            # Each piece costs what a kilobyte does; a megabyte in bytes would keep the loop for a second.
            self._refuse(
                HTTPStatus.BAD_REQUEST,
                RejectReason.MALFORMED,
                f"the body comes in pieces of less than {_SMALL} bytes; send it whole, or in larger ones",
            )
            return
        if self._bounds.short():
            # Bodies are held before anybody is let in: many at once may be more than all that is let in.
            self._refuse(
                HTTPStatus.SERVICE_UNAVAILABLE,
                RejectReason.MEMORY,
                "this process has used up its memory; ask another instance",
            )
            return
        super().on_body(body)

    def _announced(self) -> int:
        """How long the body of a request is that offers another protocol; it may not come in chunks."""
        headers = dict(self.headers)
        if b"transfer-encoding" in headers:
            self._refuse(
                HTTPStatus.BAD_REQUEST,
                RejectReason.MALFORMED,
                "a request with Upgrade must give its Content-Length; leave out Upgrade or the chunks",
            )
        length = headers.get(b"content-length", b"0").strip()
        if not _LENGTH.fullmatch(length):
            self._refuse(HTTPStatus.BAD_REQUEST, RejectReason.MALFORMED, "Content-Length is no length")
            return 0
        return int(length)

    def on_message_complete(self) -> None:
        """Note that the request is here, and that the next head begins."""
        if self._body_left or self._is_over():
            return
        if self._turned_away is None:
            super().on_message_complete()
        else:
            self._turn_away(self._turned_away)
        self._head_bytes, self._begun = 0, False
        self._stop_waiting()

    def _turn_away(self, answer: bytes) -> None:
        self._turned_away = None
        self.transport.write(answer)
        if not self.parser.should_keep_alive():
            return self.transport.close()
        pause_s = self._bounds.pushback.after_refusal()
        if pause_s:
            pause_s = min(pause_s, self.timeout_keep_alive / 2)
            self.flow.pause_reading()
            self.loop.call_later(pause_s, self._listen_again, pause_s)
        self._unset_keepalive_if_required()
        patience = self.timeout_keep_alive
        self.timeout_keep_alive_task = self.loop.call_later(patience, self.timeout_keep_alive_handler)
        return None

    def _listen_again(self, paused_s: float) -> None:
        self._waited_s = paused_s
        self.flow.resume_reading()
        # What came meanwhile is read in the loop's next turn; what comes after that has not waited.
        self.loop.call_soon(self.loop.call_soon, self._caught_up)

    def _caught_up(self) -> None:
        self._waited_s = 0.0

    def _wait_for_request(self) -> None:
        self._overdue = self.loop.call_later(self._bounds.receive_s, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _too_slow(self) -> None:
        self._overdue = None
        if self._is_over():
            return
        if not self._begun:  # nothing was asked, so there is nothing to answer
            self._bounds.rejected(RejectReason.SLOW)
            return self.transport.close()
        return self._refuse(
            HTTPStatus.REQUEST_TIMEOUT,
            RejectReason.SLOW,
            f"the request did not arrive within {self._bounds.receive_s:g} seconds",
        )

    def _refuse(self, status: HTTPStatus, reason: RejectReason, message: str) -> None:
        """Answer in the form of every other refusal, and close: what else comes cannot be told apart.

        Where an earlier request has not been answered, its caller would take this for the answer: then the
        connection ends after that one.
        """
        self._bounds.rejected(reason)
        self._stop_waiting()
        self._refused = True
        if self._earlier_is_under_way():
            self.cycle.keep_alive = False
            self.pipeline.clear()
            return
        if not self._is_answering():
            again = status is HTTPStatus.SERVICE_UNAVAILABLE
            error = {"code": reason.value.upper(), "message": message, "request_id": "-", "retryable": again}
            body = orjson.dumps({"error": error})
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            head += "retry-after: 1\r\n" if again else ""
            head += f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n"
            self.transport.write(head.encode() + body)
        self.transport.close()

    def _is_over(self) -> bool:
        """Whether nothing that comes is read any more."""
        return self._refused or self.transport.is_closing()

    def _earlier_is_under_way(self) -> bool:
        """Whether what is answered now is not the request that arrives now."""
        return not self._is_idle() and (self._head_bytes is not None or bool(self.pipeline))

    def _is_idle(self) -> bool:
        cycle: Any = self.cycle  # None before the first request, whatever uvicorn declares
        return cycle is None or cycle.response_complete

    def _is_answering(self) -> bool:
        return not self._is_idle() and self.cycle.response_started
