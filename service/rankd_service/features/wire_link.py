"""A link of our own over a plain socket: the event loop's transport below, hiredis's parser above.

A read of one key takes 30 us on it where it takes 41 over redis-py's connection (`bench/store_read.py`). What
it does not speak (TLS, options in the address) is left to redis-py.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import hiredis

from rankd_service.features.link import Done

__all__ = ["WireAddress", "WireLink", "open_wire_link"]


@dataclass(frozen=True, slots=True)
class WireAddress:
    """Where a server listens (host and port, or a socket's path), and what to say first."""

    host: str
    port: int
    path: str | None
    hello: tuple[bytes, ...]


class WireLink(asyncio.Protocol):
    """One connection. Data that nobody asked for ends it."""

    def __init__(self) -> None:
        """Wait to be connected."""
        self._reader = hiredis.Reader(notEnoughData=Ellipsis, errors="replace")
        self._transport: Any = None
        self._done: Done | None = None
        self._replies: list[Any] = []
        self._wanted = 1
        self._reason: Exception | None = None
        self._gone = asyncio.get_running_loop().create_future()
        self.open = False

    def ask(self, commands: bytes, done: Done, replies: int = 1) -> None:
        """Send packed commands that have so many replies; `done` is called once, later."""
        self._done, self._wanted = done, replies
        self._transport.write(commands)

    def abort(self, reason: Exception) -> None:
        """End the connection; an exchange under way is done, with this reason."""
        self.open, self._reason = False, self._reason or reason
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """End the connection and wait until it is gone."""
        self.abort(ConnectionAbortedError("closed"))
        await self._gone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport, self.open = transport, True

    def data_received(self, data: bytes) -> None:
        """Read on; hand whole replies to whoever asked."""
        self._reader.feed(data)
        try:
            reply = self._reader.gets()
            while reply is not Ellipsis and len(self._replies) + 1 < self._wanted:
                self._replies.append(reply)
                reply = self._reader.gets()
        except hiredis.HiredisError as error:
            return self.abort(ValueError(str(error)))
        if reply is Ellipsis:
            return None
        done, self._done = self._done, None
        if done is None:
            return self.abort(ValueError("a reply that nobody asked for"))
        if self._reader.has_data():
            self.abort(ValueError("a reply too many"))
        if self._wanted > 1:
            replies, self._replies, self._wanted = [*self._replies, reply], [], 1
            return done(replies, None)
        if isinstance(reply, hiredis.ReplyError):
            return done(None, reply)
        return done(reply, None)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever waits."""
        self.open = False
        self._gone.set_result(None)
        done, self._done = self._done, None
        if done is not None:
            done(None, self._reason or error or ConnectionResetError("the server closed the connection"))


async def open_wire_link(address: WireAddress) -> WireLink:
    """Connect and say hello. Raises OSError, ValueError, or the server's own refusal."""
    loop = asyncio.get_running_loop()
    if address.path is not None:
        _, link = await loop.create_unix_connection(WireLink, address.path)
    else:
        _, link = await loop.create_connection(WireLink, address.host, address.port)
    try:
        for command in address.hello:
            await _answer(link, command)
        if not link.open:  # the last reply came, and with it one too many
            raise ValueError("a reply too many")
    except BaseException:
        link.abort(ConnectionAbortedError("the greeting failed"))
        raise
    return link


async def _answer(link: WireLink, command: bytes) -> Any:
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def done(reply: Any, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(reply)

    link.ask(command, done)
    return await answer
