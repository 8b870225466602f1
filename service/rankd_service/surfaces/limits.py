"""What is refused before anything is parsed, and how ids and deadlines are judged.

Bytes are limited while they arrive: a length that is announced too long is refused unread, one that turns
out too long is refused at the limit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from itertools import count
from secrets import token_hex
from typing import Any

from rankd_service.domain import Partition
from rankd_service.errors import InvalidRequest, RejectReason, RequestTooLarge, UnsupportedMedia
from rankd_service.settings import LimitSettings

__all__ = [
    "ClientGone",
    "check_ids",
    "deadline_s",
    "glimpsed_deadline_ms",
    "header_deadline_ms",
    "header_partition",
    "read_body",
    "request_id",
]

Message = MutableMapping[str, Any]
Headers = Mapping[bytes, bytes]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_NUMBER = re.compile(rb"[+-]?[0-9]{1,15}(\.[0-9]{1,20})?")
_IN_BODY = re.compile(rb'"deadline_ms"\s*:\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)')
_DEADLINE_HEADER = "X-Deadline-Ms"

_MOST_DIGITS = 18


class _RequestIds:
    """New ids, unique by process and number: asking the system for randomness costs 15 us a request."""

    def __init__(self) -> None:
        self._draw()
        os.register_at_fork(after_in_child=self._draw)

    def _draw(self) -> None:
        self._process, self._numbers = token_hex(8), count(1)

    def new(self) -> str:
        return f"{self._process}{next(self._numbers):016x}"


_IDS = _RequestIds()


class ClientGone(Exception):
    """The client hung up before its request was whole; there is nobody to answer."""


def request_id(headers: Headers) -> str:
    """Return the caller's request id where it is fit for a log line, else a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return _IDS.new()


async def read_body(headers: Headers, receive: Callable[[], Awaitable[Message]], max_bytes: int) -> bytes:
    """Read a JSON body of at most `max_bytes`. Raises UnsupportedMedia or RequestTooLarge."""
    media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if media_type != b"application/json":
        raise UnsupportedMedia(
            RejectReason.MEDIA_TYPE, "the body must be JSON; send it with Content-Type: application/json"
        )
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise UnsupportedMedia(
            RejectReason.ENCODING, "compressed bodies are not read; send it without Content-Encoding"
        )
    announced = headers.get(b"content-length")
    # The HTTP parser let only digits through, but any number of them.
    if announced is not None and (len(announced) > _MOST_DIGITS or int(announced) > max_bytes):
        raise _too_large(max_bytes)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        return body
    chunks, size = [], 0
    while True:
        if message["type"] != "http.request":
            raise ClientGone
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > max_bytes:
            raise _too_large(max_bytes)
        if not message.get("more_body"):
            return b"".join(chunks)
        message = await receive()


def check_ids(ids: Sequence[str], max_bytes: int, place: str) -> None:
    """Refuse ids that are empty, too long in UTF-8 or hold NUL; `place` names one, `{row}` is its index."""
    lengths, text = set(map(len, ids)), "".join(ids)
    longest = max(lengths) * (1 if text.isascii() else 4)
    if 0 not in lengths and "\0" not in text and longest <= max_bytes:
        return
    for row, one in enumerate(ids):
        if not one or "\0" in one or len(one.encode()) > max_bytes:
            raise InvalidRequest(
                RejectReason.SCHEMA,
                f"expected 1 to {max_bytes} bytes of UTF-8 without NUL",
                place.format(row=row),
            )


def header_deadline_ms(headers: Headers) -> float | None:
    """Return the deadline the header asks for. Raises InvalidRequest where it is no plain decimal number."""
    given = headers.get(b"x-deadline-ms")
    if given is None:
        return None
    if not _NUMBER.fullmatch(given):
        raise InvalidRequest(
            RejectReason.DEADLINE, "expected milliseconds as a decimal number", _DEADLINE_HEADER
        )
    return _positive(float(given), _DEADLINE_HEADER)


def header_partition(headers: Headers) -> Partition:
    """Return whose request it is; live where the header does not say. Raises InvalidRequest."""
    given = headers.get(b"x-priority")
    if given is None:
        return Partition.LIVE
    try:
        return Partition(given.decode("latin-1").lower())
    except ValueError:
        known = " or ".join(Partition)
        raise InvalidRequest(RejectReason.SCHEMA, f"expected {known}", "X-Priority") from None


def glimpsed_deadline_ms(body: bytes) -> float | None:
    """Return the deadline that an unread body seems to give, so that waiting to be let in can heed it.

    What the body really says counts once it is read. A text in it cannot look like this: its quotes have
    backslashes.
    """
    at = body.find(b'"deadline_ms"')  # a few times as fast as the pattern, where there is none
    found = _IN_BODY.match(body, at) if at >= 0 else None
    return float(found[1]) or None if found else None


def deadline_s(
    in_header_ms: float | None, in_body_ms: float | None, limits: LimitSettings
) -> tuple[float, bool]:
    """Return the time a request has, and whether it was cut to our maximum. The shorter wish wins."""
    wishes = [ms for ms in (in_header_ms, in_body_ms) if ms is not None]
    if in_body_ms is not None:
        _positive(in_body_ms, "deadline_ms")
    wish_ms = min(wishes, default=limits.default_deadline_ms)
    return min(wish_ms, limits.max_deadline_ms) / 1000, wish_ms > limits.max_deadline_ms


def _positive(ms: float, place: str) -> float:
    if ms <= 0:
        raise InvalidRequest(RejectReason.DEADLINE, "expected more than 0 milliseconds", place)
    return ms


def _too_large(max_bytes: int) -> RequestTooLarge:
    return RequestTooLarge(
        RejectReason.TOO_LARGE,
        f"the body is longer than {max_bytes} bytes; send fewer candidates or fewer fields",
    )
