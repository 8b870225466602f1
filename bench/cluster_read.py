"""Times one request's read of feature rows from a cluster of three primaries, against one server's MGET.

In turn: what the service does (a GET a key, in one write a primary), the same with an MGET a slot, redis-py's
`mget_nonatomic`, and one MGET at a server that is no cluster. All on this machine, which the primaries share.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import redis
import uvloop
from rich.console import Console

from bench.in_turns import Read, timed
from rankd_service.features.cluster_store import ClusterStore
from rankd_service.features.redis_client import RedisClient
from rankd_service.features.redis_connection import key_slot, pack
from rankd_service.features.redis_store import RedisStore
from rankd_service.features.store_address import parse_address
from tests.support.valkey import Valkey
from tests.support.valkey_cluster import ValkeyCluster

NUM_ROWS, ROW_BYTES = 100_000, 200
SIZES = (1, 100, 500)
ROUNDS, WARM_UP = 1_000, 100


class BySlot:
    """Reads with an MGET a slot, those of one primary in one write."""

    def __init__(self, store: ClusterStore, clients: dict[object, RedisClient]) -> None:
        self._store, self._clients = store, clients

    async def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values in the order of the keys."""
        slots, encoded = await self._store.topology.known(1.0), [key.encode() for key in keys]
        rows: list[bytes | None] = [None] * len(keys)
        asked = []
        for node, positions in slots.split(encoded):
            by_slot: dict[int, list[int]] = {}
            for position in positions:
                by_slot.setdefault(key_slot(encoded[position]), []).append(position)
            commands = [pack("MGET", *(encoded[p] for p in mine)) for mine in by_slot.values()]
            client = self._clients[node]
            question = client.begin(b"".join(commands) + pack("PING", "end"), bool, 5.0, len(commands) + 1)
            asked.append((client, question, list(by_slot.values())))
        for client, question, groups in asked:
            for mine, found in zip(groups, await client.answer(question), strict=False):
                for position, row in zip(mine, found, strict=True):
                    rows[position] = row
        return rows


async def measure(cluster: ValkeyCluster, server: Valkey) -> dict[str, dict[int, list[float]]]:
    """Time all ways in turn -> microseconds by way and number of keys."""
    client = partial(
        RedisClient, connections=4, connect_timeout_s=1.0, read_timeout_s=5.0, max_outstanding=64
    )
    address = parse_address(cluster.url)
    store, alone = ClusterStore(address, client), RedisStore(client(server.url))
    by_redis_py = redis.asyncio.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port, protocol=2)
    slots = await store.topology.known(5.0)
    clients: dict[object, RedisClient] = {n: client(address.of_node(n)) for n in slots.primaries}
    by_slot = BySlot(store, clients)
    ways: dict[str, Read] = {
        "GETs in one write": lambda keys: store.read(keys, 5.0),
        "MGETs in one write": by_slot.read,
        "redis-py": lambda keys: by_redis_py.mget_nonatomic(*keys),
        "one server, MGET": lambda keys: alone.read(keys, 5.0),
    }
    found = await timed(ways, SIZES, key, num_rows=NUM_ROWS, rounds=ROUNDS, warm_up=WARM_UP)
    await asyncio.gather(store.close(), alone.close(), *(c.close() for c in clients.values()))
    await by_redis_py.aclose()
    return found


def key(number: int) -> str:
    """Return the key of a row."""
    return f"rankd:item_profile:0123abcd:{number}"


def main() -> None:
    """Run the benchmark and print its table."""
    console = Console(highlight=False, soft_wrap=True)
    rows = {key(number): bytes(ROW_BYTES) for number in range(NUM_ROWS)}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("cluster", "server"):
            (Path(folder) / name).mkdir()
        with ValkeyCluster(Path(folder) / "cluster") as cluster, Valkey(Path(folder) / "server") as server:
            cluster.put(rows)
            server.put(rows)
            found = uvloop.run(measure(cluster, server))
    console.print(f"{NUM_ROWS} rows of {ROW_BYTES} bytes; {ROUNDS} rounds")
    for n in SIZES:
        alone_us = float(np.median(found["one server, MGET"][n]))
        for name, by_size in found.items():
            median, p99 = np.percentile(by_size[n], [50, 99])
            ratio = f"  {median / alone_us:.2f}x one server"
            console.print(f"{n:4} keys  {name:18} median {median:7.1f} us  p99 {p99:7.1f} us{ratio}")


if __name__ == "__main__":
    main()
