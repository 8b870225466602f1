"""Bulk work on a cluster: each primary is sent its rows ahead of the replies that are awaited.

What a cluster's node refuses because a key is elsewhere by
now, or does not answer, is written once more through redis-py's cluster client, which follows and tries on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import SSLConnection, parse_url
from redis.retry import Retry

from rankd_service.errors import StoreErrorKind, StoreUnavailable
from rankd_service.features.bulk_store import BulkStore, ServerBulk, pack_sets
from rankd_service.features.redis_connection import BlockingConnection, pack
from rankd_service.features.redis_failures import FAILURES, kind_of
from rankd_service.features.slot_map import SLOTS, SlotMap
from rankd_service.features.store_address import (
    NodeAddress,
    StoreAddress,
    StoreKind,
    parse_address,
    shown_url,
)

__all__ = ["ClusterBulk", "open_bulk"]

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


def open_bulk(url: str, timeout_s: float) -> BulkStore:
    """Connect to whatever an address leads to. Raises StartupFailed where it is none, StoreUnavailable."""
    address = parse_address(url)
    if address.kind is StoreKind.CLUSTER:
        return ClusterBulk(address, timeout_s)
    return ServerBulk(url, timeout_s)


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
                    b"".join(pack_sets([k for k, _ in mine], [r for _, r in mine], ttl_ms))
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
