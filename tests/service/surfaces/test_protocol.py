from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn

from rankd_service.surfaces.protocol import OneWriteProtocol


class Recording(asyncio.Transport):
    """What a connection was told to do, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[bytes | str] = []

    def write(self, data: Any) -> None:
        self.said.append(bytes(data))

    def close(self) -> None:
        self.said.append("close")

    def is_closing(self) -> bool:
        return "close" in self.said

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in {"peername", "sockname"} else default

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    close = [(b"connection", b"close")] if scope["path"] == "/close" else []
    length = [(b"content-length", b"4")]
    await send({"type": "http.response.start", "status": 200, "headers": length + close})
    await send({"type": "http.response.body", "body": b"body"})


async def told(requests: bytes) -> list[bytes | str]:
    config = uvicorn.Config(app, http=OneWriteProtocol, ws="none", log_config=None, lifespan="off")
    config.load()
    protocol = OneWriteProtocol(config, uvicorn.server.ServerState(), {})
    transport = Recording()
    protocol.connection_made(transport)
    protocol.data_received(requests)
    for _ in range(20):
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    return transport.said


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def test_head_and_body_of_an_answer_are_one_write() -> None:
    (answer,) = [said for said in asyncio.run(told(request("/"))) if said != "close"]
    assert isinstance(answer, bytes)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\nbody")


def test_an_answer_is_written_before_its_connection_is_closed() -> None:
    answer, then = asyncio.run(told(request("/close")))[:2]
    assert isinstance(answer, bytes)
    assert answer.endswith(b"body")
    assert then == "close"


def test_pipelined_requests_are_answered_whole_and_in_order() -> None:
    said = asyncio.run(told(request("/") * 3))
    written = b"".join(part for part in said if isinstance(part, bytes))
    assert written.count(b"\r\n\r\nbody") == 3
    assert written.count(b"HTTP/1.1 200") == 3


def test_a_client_that_reads_nothing_stops_nobody_else() -> None:
    """A large answer to a client that does not read must wait in that client's connection alone."""

    async def large(scope: Any, receive: Any, send: Any) -> None:
        size = 20 << 20 if scope["path"] == "/large" else 4
        head = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"x" * size})

    async def scenario() -> bytes:
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(large, http=OneWriteProtocol, ws="none", log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        port = listener.getsockname()[1]
        _, lazy = await asyncio.open_connection("127.0.0.1", port)
        lazy.write(request("/large"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("/"))
        answer = await reader.readuntil(b"xxxx")
        for open_one in (lazy, writer):
            open_one.close()
        server.should_exit = True
        await serving
        listener.close()
        return answer

    assert asyncio.run(scenario()).startswith(b"HTTP/1.1 200")
