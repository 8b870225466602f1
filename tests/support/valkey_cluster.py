"""Three real primaries and three replicas as one cluster on loopback, to be killed and frozen by tests."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import redis

from tests.support.valkey import Valkey, free_port

__all__ = ["ValkeyCluster"]

_SLOTS = 16384
_PRIMARIES = 3
_UP_S = 30.0
_OPTIONS = (
    *("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "1000"),
    # A replica that has not synchronised is never promoted, so it should do that at once.
    *("--repl-diskless-sync-delay", "0", "--cluster-allow-replica-migration", "no"),
)


class ValkeyCluster:
    """Nodes 0 to 2 are primaries at first, 3 to 5 their replicas in that order."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        """Start the nodes, deal the slots out and wait until all of it agrees; some two seconds."""
        with ExitStack() as stack:
            self.nodes: list[Valkey] = []
            for number in range(2 * _PRIMARIES):
                own = folder / f"node{number}"
                own.mkdir()
                self.nodes.append(
                    stack.enter_context(Valkey(own, *_OPTIONS, *arguments, port=_port_with_a_bus()))
                )
            self._join()
            self._stack = stack.pop_all()

    def __enter__(self) -> ValkeyCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """An address that names two of the nodes, a primary and a replica."""
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port},127.0.0.1:{self.nodes[4].port}"

    def put(self, rows: Mapping[str, bytes]) -> None:
        """Write rows through the library's own cluster client."""
        with self.client() as client:
            client.mset_nonatomic(dict(rows))

    def client(self) -> redis.RedisCluster:
        return redis.RedisCluster(host="127.0.0.1", port=self.nodes[0].port, protocol=2)

    def keys_of(self, primary: int, keys: Sequence[str]) -> list[str]:
        """Return those keys whose slots were dealt to a primary at first."""
        first, last = _range(primary)
        return [key for key in keys if first <= redis.crc.key_slot(key.encode()) <= last]

    def move_slots(self, slots: Iterable[int], source: int, target: int) -> None:
        """Move slots with their keys from one primary to another, as `redis-cli --cluster reshard` does."""
        there = ("127.0.0.1", self.nodes[target].port, "", 0, 5000, "KEYS")
        with self.nodes[source].client() as old, self.nodes[target].client() as new:
            ids = [client.execute_command("CLUSTER", "MYID").decode() for client in (old, new)]
            for slot in slots:
                new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
                old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
                while keys := old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                    old.execute_command("MIGRATE", *there, *keys)
                for client in (new, old):
                    client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])

    def until_synchronised(self) -> None:
        """Wait until each replica holds what its primary does: only then can it take its place."""
        for node in self.nodes[_PRIMARIES:]:
            _until(
                node, lambda client: b"master_link_status:up" in client.execute_command("INFO", "replication")
            )

    def until_promoted(self, replica: int, within_s: float = 15.0) -> None:
        """Wait until a replica has become a primary."""
        _until(
            self.nodes[replica],
            lambda client: b"role:master" in client.execute_command("INFO", "replication"),
            within_s,
        )

    def _join(self) -> None:
        first = self.nodes[0]
        ids = []
        for number, node in enumerate(self.nodes):
            with node.client() as client:
                ids.append(client.execute_command("CLUSTER", "MYID").decode())
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                if number < _PRIMARIES:
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", *_range(number))
                if number:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port)
        for node in self.nodes:
            _until(node, lambda client: _number(client, b"cluster_known_nodes") == len(self.nodes))
        for number, node in enumerate(self.nodes[_PRIMARIES:]):
            _until(node, lambda client, of=ids[number]: _replicates(client, of))  # type: ignore[misc]
        for node in self.nodes:
            _until(node, lambda client: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"))
            _until(node, lambda client: len(client.execute_command("CLUSTER", "SLOTS")) == _PRIMARIES)
        self.until_synchronised()


def _range(primary: int) -> tuple[int, int]:
    return primary * _SLOTS // _PRIMARIES, (primary + 1) * _SLOTS // _PRIMARIES - 1


def _port_with_a_bus() -> int:
    """Return a free port whose port for the cluster's own talk, 10000 above, is free too."""
    while True:
        port = free_port()
        if port + 10_000 > 65_535:
            port -= 20_000
        with socket.socket() as one, socket.socket() as bus, suppress(OSError):
            one.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10_000))
            return port


def _number(client: Any, name: bytes) -> int:
    lines = client.execute_command("CLUSTER", "INFO").splitlines()
    return int(dict(line.split(b":") for line in lines)[name])


def _replicates(client: Any, primary: str) -> bool:
    """Become a replica, as soon as the primary is known to be there."""
    try:
        return bool(client.execute_command("CLUSTER", "REPLICATE", primary) == b"OK")
    except redis.ResponseError:
        return False


def _until(node: Valkey, condition: Callable[[Any], bool], within_s: float = _UP_S) -> None:
    give_up = time.monotonic() + within_s
    with node.client() as client:
        client.response_callbacks.clear()  # replies as they are
        while not condition(client):
            assert time.monotonic() < give_up, f"port {node.port}: not within {within_s:g} s"
            time.sleep(0.02)
