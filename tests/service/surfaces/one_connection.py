"""One connection of the protocol, over a transport that notes what it was told."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn

from rankd_service.surfaces.protocol import BoundedProtocol, Bounds

__all__ = ["Recording", "app", "opened", "request", "told", "written"]


class Recording(asyncio.Transport):
    """What a connection was told to do, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[bytes | str] = []

    def write(self, data: Any) -> None:
        self.said.append(bytes(data))

    def close(self) -> None:
        self.said.append("close")

    def abort(self) -> None:
        self.said.append("abort")

    def is_closing(self) -> bool:
        return "close" in self.said or "abort" in self.said

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in {"peername", "sockname"} else default

    def pause_reading(self) -> None:
        self.said.append("pause")

    def resume_reading(self) -> None:
        self.said.append("resume")


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/echo":
        return await echo(receive, send)
    await receive()
    close = [(b"connection", b"close")] if scope["path"] == "/close" else []
    length = [(b"content-length", b"4")]
    await send({"type": "http.response.start", "status": 200, "headers": length + close})
    await send({"type": "http.response.body", "body": b"body"})


async def echo(receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message.get("more_body", False)
    head = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


def opened(bounds: Bounds | None = None) -> tuple[BoundedProtocol, Recording]:
    """Open a connection."""
    config = uvicorn.Config(app, http=BoundedProtocol, ws="none", log_config=None, lifespan="off")
    config.load()
    protocol = BoundedProtocol(config, uvicorn.server.ServerState(), {}, bounds=bounds)
    transport = Recording()
    protocol.connection_made(transport)
    return protocol, transport


async def told(*pieces: bytes, bounds: Bounds | None = None, wait_s: float = 0.0) -> list[bytes | str]:
    """What a connection answers to pieces of requests."""
    protocol, transport = opened(bounds)
    for piece in pieces:
        protocol.data_received(piece)
        for _ in range(20):
            await asyncio.sleep(0)
    await asyncio.sleep(wait_s)
    said = list(transport.said)
    protocol.connection_lost(None)
    return said


def written(said: list[bytes | str]) -> bytes:
    return b"".join(part for part in said if isinstance(part, bytes))


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
