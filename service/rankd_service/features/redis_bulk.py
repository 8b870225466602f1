"""Bulk work on a store, one server or a cluster: rows are sent ahead of the replies that are awaited.

Nothing else runs meanwhile, so all of it blocks. What a cluster's node refuses because a key is elsewhere by
now, or does not answer, is written once more through redis-py's cluster client, which follows and tries on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import SSLConnection, parse_url
from redis.retry import Retry

from rankd_service.errors import StoreErrorKind, StoreUnavailable
from rankd_service.features.redis_connection import FAILURES, BlockingConnection, kind_of, pack
from rankd_service.features.slot_map import SLOTS, SlotMap
from rankd_service.features.store_address import (
    NodeAddress,
    StoreAddress,
    StoreKind,
    parse_address,
    shown_url,
)

__all__ = ["BulkStore", "ClusterBulk", "ServerBulk", "open_bulk"]

_ROWS_A_COMMAND = 1024  # longer commands keep a server from its readers
_STEP_S = 0.25
_MAP = pack("CLUSTER", "SLOTS") + pack("CLUSTER", "INFO")
_ELSEWHERE = {
    *(StoreErrorKind.MOVED, StoreErrorKind.CLUSTER_DOWN, StoreErrorKind.LOADING),
    *(StoreErrorKind.REFUSED, StoreErrorKind.RESET, StoreErrorKind.TIMEOUT),
}
_GONE = {StoreErrorKind.REFUSED, StoreErrorKind.RESET, StoreErrorKind.TIMEOUT, StoreErrorKind.PROTOCOL}

_parse_url: Callable[[str], dict[str, Any]] = parse_url
_make_node: Callable[..., Any] = ClusterNode
_make_cluster: Callable[..., Any] = RedisCluster


class BulkStore(Protocol):
    """A store that is written to. Every method raises StoreUnavailable."""

    def send(self, keys: Sequence[str], rows: Sequence[bytes], ttl_ms: int | None) -> None:
        """Send rows; the replies to those sent before must have been drained."""

    def drain(self) -> None:
        """Wait until all that was sent is acknowledged."""

    def get(self, key: str) -> bytes | None:
        """Return one value. Nothing may be outstanding."""

    def set(self, key: str, value: bytes, ttl_ms: int) -> None:
        """Write one value. Nothing may be outstanding."""

    def delete(self, key: str) -> None:
        """Remove one value. Nothing may be outstanding."""

    def is_embedded_as(self, snapshot: str) -> bool:
        """Tell whether it is an embedded server, which keeps rows in such a file when told to `save`."""

    def save(self) -> None:
        """Have an embedded server keep its rows."""

    def clocks(self) -> Mapping[str, float]:
        """Return what time each server has, in seconds since 1970, by its name."""

    @property
    def without_a_server(self) -> float:
        """The share of keys that no server has, from 0 to 1."""

    def is_part_of_a_cluster(self) -> bool:
        """Tell whether it is one node of a cluster, asked as if it were alone."""

    def close(self) -> None:
        """Close every connection."""


def open_bulk(url: str, timeout_s: float) -> BulkStore:
    """Connect to whatever an address leads to. Raises StartupFailed where it is none, StoreUnavailable."""
    address = parse_address(url)
    if address.kind is StoreKind.CLUSTER:
        return ClusterBulk(address, timeout_s)
    return ServerBulk(url, timeout_s)


class ServerBulk:
    """One server, on one connection."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """Connect."""
        self._name = shown_url(url)
        self._connection = BlockingConnection(url, timeout_s)
        self._awaited = 0

    def send(self, keys: Sequence[str], rows: Sequence[bytes], ttl_ms: int | None) -> None:
        """Send rows, many in one command where they live for ever."""
        commands = _msets(keys, rows) if ttl_ms is None else _sets(keys, rows, ttl_ms)
        self._connection.send(b"".join(commands))
        self._awaited = len(commands)

    def drain(self) -> None:
        """Wait until all that was sent is acknowledged."""
        for _ in range(self._awaited):
            self._connection.receive()
        self._awaited = 0

    def get(self, key: str) -> bytes | None:
        """Return one value."""
        value: bytes | None = self._ask("GET", key)
        return value

    def set(self, key: str, value: bytes, ttl_ms: int) -> None:
        """Write one value."""
        self._ask("SET", key, value, "PX", ttl_ms)

    def delete(self, key: str) -> None:
        """Remove one value."""
        self._ask("DEL", key)

    def is_embedded_as(self, snapshot: str) -> bool:
        """Tell whether the server's snapshot has that name; one that shows no configuration is not ours."""
        try:
            return bool(self._ask("CONFIG", "GET", "dbfilename") == [b"dbfilename", snapshot.encode()])
        except StoreUnavailable:
            return False

    def save(self) -> None:
        """Have it write its snapshot."""
        self._ask("SAVE")

    def clocks(self) -> Mapping[str, float]:
        """Return what time it has."""
        seconds, micros = self._ask("TIME")
        return {self._name: int(seconds) + int(micros) / 1e6}

    @property
    def without_a_server(self) -> float:
        """None: it has all of them."""
        return 0.0

    def is_part_of_a_cluster(self) -> bool:
        """Ask it; one that may not say is taken for a server of its own."""
        try:
            return bytes(self._ask("CLUSTER", "INFO")).startswith(b"cluster_")
        except StoreUnavailable:
            return False

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(self, *command: str | bytes | int) -> Any:
        self._connection.send(pack(*command))
        return self._connection.receive()


class ClusterBulk:
    """The primaries of a cluster, a connection each."""

    def __init__(self, address: StoreAddress, timeout_s: float) -> None:
        """Connect to some node and ask it for the others."""
        self._address, self._timeout_s = address, timeout_s
        self._connections: dict[NodeAddress, BlockingConnection] = {}
        self._sent: dict[NodeAddress, list[tuple[str, bytes]]] = {}
        self._ttl_ms: int | None = None
        self._careful: Any = None
        self.slots = self._find_slots()

    def send(self, keys: Sequence[str], rows: Sequence[bytes], ttl_ms: int | None) -> None:
        """Send each primary its rows."""
        self._ttl_ms = ttl_ms
        for node, positions in self.slots.split([key.encode() for key in keys]):
            mine = [(keys[p], rows[p]) for p in positions]
            if node is None:
                raise StoreUnavailable(
                    StoreErrorKind.CLUSTER_DOWN, f"{self}: no primary for {len(mine)} rows"
                )
            self._sent[node] = mine
            try:
                self._connection(node).send(
                    b"".join(_sets([k for k, _ in mine], [r for _, r in mine], ttl_ms))
                )
            except StoreUnavailable as failure:
                self._forget(node, failure)

    def drain(self) -> None:
        """Wait until all is acknowledged, by whichever node has come to be the one."""
        again: list[tuple[str, bytes]] = []
        for node, mine in self._sent.items():
            for pair in mine:
                try:
                    if node in self._connections:
                        self._connections[node].receive()
                    else:
                        again.append(pair)
                except StoreUnavailable as failure:
                    self._forget(node, failure)
                    again.append(pair)
        self._sent = {}
        if again:
            for key, row in again:
                self._carefully(partial(_set, key=key, row=row, ttl_ms=self._ttl_ms))
            self.slots = self._find_slots()

    def get(self, key: str) -> bytes | None:
        """Return one value."""
        value: bytes | None = self._carefully(lambda client: client.get(key))
        return value

    def set(self, key: str, value: bytes, ttl_ms: int) -> None:
        """Write one value."""
        self._carefully(lambda client: client.set(key, value, px=ttl_ms))

    def delete(self, key: str) -> None:
        """Remove one value."""
        self._carefully(lambda client: client.delete(key))

    def is_embedded_as(self, snapshot: str) -> bool:
        """Say no: an embedded store is one server."""
        return False

    def save(self) -> None:
        """Do nothing: a cluster keeps rows as its operator has it."""

    def clocks(self) -> Mapping[str, float]:
        """Return what time each primary has."""
        found = {}
        for node in self.slots.primaries:
            self._connection(node).send(pack("TIME"))
            seconds, micros = self._connection(node).receive()
            found[str(node)] = int(seconds) + int(micros) / 1e6
        return found

    @property
    def without_a_server(self) -> float:
        """The share of slots that no primary has."""
        return self.slots.uncovered / SLOTS

    def is_part_of_a_cluster(self) -> bool:
        """Say no: it is all of one."""
        return False

    def close(self) -> None:
        """Close every connection."""
        for connection in self._connections.values():
            connection.close()
        self._let_go()

    def __str__(self) -> str:
        return shown_url(self._address.url)

    def _connection(self, node: NodeAddress) -> BlockingConnection:
        if node not in self._connections:
            self._connections[node] = BlockingConnection(self._address.of_node(node), self._timeout_s)
        return self._connections[node]

    def _forget(self, node: NodeAddress, failure: StoreUnavailable) -> None:
        """Let a connection go that is lost; what fails for good is raised."""
        if failure.kind not in _ELSEWHERE:
            raise failure
        if failure.kind in _GONE and node in self._connections:
            self._connections.pop(node).close()

    def _find_slots(self) -> SlotMap:
        failed: StoreUnavailable | None = None
        for node in [*self._connections, *self._address.nodes]:
            try:
                connection = self._connection(node)
                connection.send(_MAP)
                slots, info = connection.receive(), connection.receive()
                return SlotMap.parse(slots, info, node)
            except ValueError as error:
                failed = StoreUnavailable(StoreErrorKind.PROTOCOL, str(error))
            except StoreUnavailable as failure:
                failed = failure
            lost = self._connections.pop(node, None)
            if lost is not None:
                lost.close()
        assert failed is not None  # an address has a node
        raise failed

    def _carefully(self, step: Callable[[Any], Any]) -> Any:
        """Do something through redis-py's client of the cluster, which is made when it is first needed.

        A replica that takes its primary's place is waited for as long as a reply is.
        """
        give_up_s, pause = time.monotonic() + self._timeout_s, threading.Event()
        while True:
            try:
                if self._careful is None:
                    self._careful = self._client()
                return step(self._careful)
            except FAILURES as error:
                self._let_go()
                kind = kind_of(error, connecting=False)
                if kind not in _ELSEWHERE or time.monotonic() > give_up_s:
                    raise StoreUnavailable(kind, f"{self}: {kind.value}: {error}") from error
            pause.wait(_STEP_S)

    def _let_go(self) -> None:
        client, self._careful = self._careful, None
        if client is not None:
            client.close()

    def _client(self) -> Any:
        nodes = [*self._connections, *self._address.nodes]
        options = {**_parse_url(self._address.of_node(nodes[0]))}
        for name in ("host", "port", "db"):
            options.pop(name, None)
        if options.pop("connection_class", None) is SSLConnection:
            options["ssl"] = True
        options |= {"socket_timeout": self._timeout_s, "socket_connect_timeout": self._timeout_s}
        options["retry"] = Retry(NoBackoff(), 1)
        return _make_cluster(
            startup_nodes=[_make_node(node.host, node.port) for node in nodes], protocol=2, **options
        )


def _set(client: Any, key: str, row: bytes, ttl_ms: int | None) -> None:
    client.set(key, row, px=ttl_ms)


def _msets(keys: Sequence[str], rows: Sequence[bytes]) -> list[bytes]:
    commands = []
    for start in range(0, len(keys), _ROWS_A_COMMAND):
        chunk = slice(start, start + _ROWS_A_COMMAND)
        pairs: list[str | bytes] = [*keys[chunk], *keys[chunk]]
        pairs[0::2], pairs[1::2] = keys[chunk], rows[chunk]
        commands.append(pack("MSET", *pairs))
    return commands


def _sets(keys: Sequence[str], rows: Sequence[bytes], ttl_ms: int | None) -> list[bytes]:
    if ttl_ms is None:
        return [pack("SET", key, row) for key, row in zip(keys, rows, strict=True)]
    return [pack("SET", key, row, "PX", ttl_ms) for key, row in zip(keys, rows, strict=True)]
