"""Bulk work on one server, and what bulk work asks of a store: rows are sent ahead of the replies.

Nothing else runs meanwhile, so all of it blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rankd_service.errors import StoreUnavailable
from rankd_service.features.redis_connection import BlockingConnection, pack
from rankd_service.features.store_address import shown_url

__all__ = ["BulkStore", "ServerBulk", "pack_sets"]

_ROWS_A_COMMAND = 1024  # longer commands keep a server from its readers


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


class ServerBulk:
    """One server, on one connection."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """Connect."""
        self._name = shown_url(url)
        self._connection = BlockingConnection(url, timeout_s)
        self._awaited = 0

    def send(self, keys: Sequence[str], rows: Sequence[bytes], ttl_ms: int | None) -> None:
        """Send rows, many in one command where they live for ever."""
        commands = _msets(keys, rows) if ttl_ms is None else pack_sets(keys, rows, ttl_ms)
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


def _msets(keys: Sequence[str], rows: Sequence[bytes]) -> list[bytes]:
    commands = []
    for start in range(0, len(keys), _ROWS_A_COMMAND):
        chunk = slice(start, start + _ROWS_A_COMMAND)
        pairs: list[str | bytes] = [*keys[chunk], *keys[chunk]]
        pairs[0::2], pairs[1::2] = keys[chunk], rows[chunk]
        commands.append(pack("MSET", *pairs))
    return commands


def pack_sets(keys: Sequence[str], rows: Sequence[bytes], ttl_ms: int | None) -> list[bytes]:
    """Pack a SET a row."""
    if ttl_ms is None:
        return [pack("SET", key, row) for key, row in zip(keys, rows, strict=True)]
    return [pack("SET", key, row, "PX", ttl_ms) for key, row in zip(keys, rows, strict=True)]
