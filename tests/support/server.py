"""Runs the service's application on a real server and a free port of loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import uvicorn

from rankd_service.surfaces.protocol import BoundedProtocol

__all__ = ["free_port", "running", "until_ready"]


def free_port() -> int:
    """Return a port nobody listens on right now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(app: Any) -> Iterator[str]:
    """Serve an application in a thread until the block ends -> its address."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    config = uvicorn.Config(
        app, loop="uvloop", http=BoundedProtocol, ws="none", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        until(f"{address}/startupz")
        yield address
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def until_ready(address: str) -> None:
    """Wait until the service takes requests."""
    until(f"{address}/readyz")


def until(url: str, tries: int = 800) -> None:
    """Ask again and again until the answer is 200; on a busy machine one may be long in coming."""
    transport = httpx.HTTPTransport(retries=20)  # the transport waits between refused connections
    waited = threading.Event()
    with httpx.Client(transport=transport, timeout=5) as client:
        for _ in range(tries):
            with suppress(httpx.TimeoutException):
                if client.get(url).status_code == httpx.codes.OK:
                    return
            waited.wait(0.02)
    raise AssertionError(f"{url} was never answered with 200")
