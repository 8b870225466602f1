"""The service as a child process of a command: started, waited for until it is ready, ended with us."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rankd.cli.screen import fail
from rankd.client import Client

__all__ = ["die_with", "free_port", "port_is_free", "serving"]

_READY_S, _POLL_S, _DRAIN_S = 60.0, 0.05, 10.0
_PR_SET_PDEATHSIG = 1


@contextmanager
def serving(
    home: Path, repository: Path, port: int, redis_url: str | None = None, workers: int = 1
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run `rankd serve` on a port of this machine; yields the process and its address once it is ready."""
    places = [
        "--home",
        str(home),
        "--repository",
        str(repository),
        "--port",
        str(port),
        "--workers",
        str(workers),
        "--log-level",
        "warning",
    ]
    command = [sys.executable, "-m", "rankd.cli", "serve", *places]
    # By the environment, where other users of the machine cannot read the password.
    environment = {**os.environ, "REDIS_URL": redis_url} if redis_url else None  # noqa: TID251
    process = subprocess.Popen([*command, "--die-with", str(os.getpid())], env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_ready(process, url)
        yield process, url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_DRAIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """Return a port that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def die_with(parent: int) -> None:
    """Make this process end when its parent does, even a killed one. Does nothing but on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before we could ask
            raise SystemExit(1)


def _wait_ready(process: subprocess.Popen[bytes], url: str) -> None:
    give_up = time.monotonic() + _READY_S
    with Client(url, timeout_s=1.0) as client:
        while not client.ready():
            with suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_S)
                fail(f"the service ended with exit code {process.returncode}; its words are above")
            if time.monotonic() > give_up:
                fail(f"the service was not ready after {_READY_S:.0f} s; ask {url}/readyz what is missing")
