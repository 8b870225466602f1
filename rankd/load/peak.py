"""What a service answers at most: callers that ask again as soon as they are answered, so it is never idle.

A closed loop flatters latency, which is what the open-loop sender is for; it is the peak that load is
measured by.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httptools

__all__ = ["Saturated", "saturate"]

_OK = 200


@dataclass(frozen=True, slots=True)
class Saturated:
    """What so many callers got: seconds that each answer (200) took, and the number of refusals."""

    seconds: float
    taken_s: Sequence[float]
    refused: int

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.taken_s) / self.seconds


async def saturate(
    url: str, bodies: Sequence[bytes], callers: int, seconds: float, headers: dict[str, str] | None = None
) -> Saturated:
    """Let callers ask one request after the other for that long; whoever is refused asks again at once."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    given = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{given}"
    requests = [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]
    loop = asyncio.get_running_loop()
    asking = [_Caller(requests, at * len(requests) // callers, loop) for at in range(callers)]
    began_s = loop.time()
    for caller in asking:
        await loop.create_connection(lambda caller=caller: caller, host, port)  # type: ignore[misc]
    await asyncio.sleep(seconds)
    spent_s = loop.time() - began_s
    for caller in asking:
        caller.stop()
    taken_s = [taken for caller in asking for taken in caller.taken_s]
    return Saturated(spent_s, taken_s, sum(caller.refused for caller in asking))


class _Caller(asyncio.Protocol):
    """One connection that is never without a request; also what httptools calls back."""

    def __init__(self, requests: Sequence[bytes], first: int, loop: asyncio.AbstractEventLoop) -> None:
        self._requests, self._next, self._loop = requests, first, loop
        self._asked_s = 0.0
        self._transport: Any = None  # uvloop's are not asyncio's
        self.taken_s: list[float] = []
        self.refused = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() == _OK:
            self.taken_s.append(time.perf_counter() - self._asked_s)
        else:
            self.refused += 1
        # The parser may not be replaced from within its own callback.
        self._loop.call_soon(self._ask)

    def _ask(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._asked_s = time.perf_counter()  # uvloop's clock counts milliseconds
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += 1

    def stop(self) -> None:
        if self._transport is not None:
            self._transport.abort()
