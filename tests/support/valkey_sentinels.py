"""A real primary, its replica and three sentinels that watch over them, on loopback."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import redis

from tests.support.valkey import Valkey, free_port, server_binary

__all__ = ["ValkeySentinels"]

_SERVICE = "features"
_UP_S = 20.0


class ValkeySentinels:
    """`primary` is the first one, `replica` the one that takes its place."""

    def __init__(self, folder: Path) -> None:
        """Start them and wait until every sentinel knows the others and the replica."""
        with ExitStack() as stack:
            for name in ("primary", "replica"):
                (folder / name).mkdir()
            quickly = ("--repl-diskless-sync-delay", "0")
            self.primary = stack.enter_context(Valkey(folder / "primary", *quickly))
            replica_of = ("--replicaof", f"127.0.0.1 {self.primary.port}")
            self.replica = stack.enter_context(Valkey(folder / "replica", *quickly, *replica_of))
            self.ports = [free_port() for _ in range(3)]
            for port in self.ports:
                stack.callback(_ended, self._sentinel(folder, port))
            for port in self.ports:
                _until_it_knows_all(port)
            self._stack = stack.pop_all()

    def __enter__(self) -> ValkeySentinels:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """An address whose first sentinel does not exist."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in (free_port(), *self.ports))
        return f"redis+sentinel://{hosts}/{_SERVICE}"

    def put(self, rows: Mapping[str, bytes]) -> None:
        """Write rows and wait until the replica has them too."""
        with self.primary.client() as client:
            client.mset(dict(rows))
            assert client.wait(1, 10_000) == 1

    def _sentinel(self, folder: Path, port: int) -> subprocess.Popen[bytes]:
        config = folder / f"sentinel{port}.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {_SERVICE} 127.0.0.1 {self.primary.port} 2\n"
            f"sentinel down-after-milliseconds {_SERVICE} 500\nsentinel failover-timeout {_SERVICE} 3000\n"
        )
        return subprocess.Popen(
            [server_binary(), str(config), "--sentinel"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )


def _ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _until_it_knows_all(port: int) -> None:
    give_up = time.monotonic() + _UP_S
    while time.monotonic() < give_up:
        try:
            with redis.Redis(port=port, protocol=2) as client:
                state = client.sentinel_master(_SERVICE)
                if (state["num-other-sentinels"], state["num-slaves"]) == (2, 1):
                    (replica,) = client.sentinel_slaves(_SERVICE)
                    if replica["master-link-status"] == "ok":
                        return
        except redis.ConnectionError:
            pass  # it is starting
        time.sleep(0.05)
    raise AssertionError(f"the sentinel at port {port} did not find the others within {_UP_S:g} s")
