"""A byte proxy on loopback that does to a connection what networks do: delay, trickle, cut, reset, swallow.

It runs in the event loop of the test. What it does is set by attributes and can change at any time; it acts
on the bytes that come back from the server, replies being what a client can be hurt by.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from types import TracebackType

__all__ = ["Proxy"]


class Proxy:
    """Forwards to a port of this host.

    Attributes:
        delay_s: asked for each chunk of a reply; the chunk is held back so long.
        trickle: forward one byte at a time.
        swallow: accept and read, and never answer.
        flowing: an event; replies are held while it is clear.
        cut_after: close after so many more reply bytes.
        reset_after: as `cut_after`, with a reset in place of an orderly end.
        insert: bytes that are put before the next reply.
        corrupt: applied to each chunk of a reply.
        accepted: connections accepted so far.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Forward to `port`; `tls` is spoken to the client, not to the server."""
        self.target, self._tls = port, tls
        self.delay_s: Callable[[], float] = lambda: 0.0
        self.trickle = False
        self.swallow = False
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.cut_after: int | None = None
        self.reset_after: int | None = None
        self.insert = b""
        self.corrupt: Callable[[bytes], bytes] = lambda chunk: chunk
        self.accepted = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.flowing.set()
        self.reset_all()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def reset_all(self) -> None:
        """Reset every connection, both ways."""
        for writer in list(self._open):
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        upstream: asyncio.StreamWriter | None = None
        try:
            replies, upstream = await asyncio.open_connection("127.0.0.1", self.target)
            self._open.add(upstream)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._requests(reader, upstream))
                pumps.create_task(self._replies(replies, writer))
        except (OSError, ExceptionGroup):
            pass  # one side is gone, and so is the other
        finally:
            for side in (writer, upstream):
                if side is not None:
                    self._open.discard(side)
                    side.close()
            self._tasks.discard(task)

    async def _requests(self, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not self.swallow:
                upstream.write(data)
                await upstream.drain()
        raise ConnectionResetError

    async def _replies(self, replies: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await replies.read(65536):
            await asyncio.sleep(self.delay_s())
            await self.flowing.wait()
            data, self.insert = self.corrupt(self.insert + data), b""
            limit = self.reset_after if self.cut_after is None else self.cut_after
            if limit is not None:
                await self._end_within(limit, data, writer)
            elif self.trickle:
                for byte in data:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0)
            else:
                writer.write(data)
                await writer.drain()
        raise ConnectionResetError

    async def _end_within(self, limit: int, data: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(data[:limit])
        await writer.drain()
        if len(data) < limit:
            self.cut_after = None if self.cut_after is None else limit - len(data)
            self.reset_after = None if self.reset_after is None else limit - len(data)
            return
        if self.reset_after is not None:
            _reset(writer)
        self.cut_after = self.reset_after = None
        raise ConnectionResetError


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    if raw is not None and not writer.transport.is_closing():
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
