"""Times one request's read of feature rows: a detached MGET of the service against what the wire allows.

Over a link of our own, and over redis-py's connection, which is what TLS and options in the address get.

The floor sends the same command over a blocking socket and counts the bytes that come back, unparsed; each
way reads keys of its own, drawn anew, because keys that were just read are faster in the server's memory.
"""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import numpy as np
import uvloop
from rich.console import Console

from bench.in_turns import Read, timed
from rankd_service.features.embedded import EmbeddedStore
from rankd_service.features.redis_client import RedisClient
from rankd_service.features.redis_connection import BlockingConnection, pack
from rankd_service.features.redis_store import RedisStore

NUM_ROWS, ROW_BYTES = 100_000, 200
SIZES = (1, 100, 500)
TARGET_RATIO = 1.35
ROUNDS, WARM_UP = 2_000, 200


def fill(url: str) -> None:
    """Write the rows that are read."""
    connection = BlockingConnection(url, timeout_s=10.0)
    for start in range(0, NUM_ROWS, 1000):
        pairs = [part for i in range(start, start + 1000) for part in (key(i), bytes(ROW_BYTES))]
        connection.send(pack("MSET", *pairs))
        connection.receive()
    connection.close()


def key(number: int) -> str:
    """Return the key of a row."""
    return f"rankd:item_profile:0123abcd:{number}"


async def measure(url: str) -> dict[str, dict[int, list[float]]]:
    """Time both ways in turn -> microseconds by way and number of keys."""
    limits = {"connections": 4, "connect_timeout_s": 1.0, "read_timeout_s": 5.0, "max_outstanding": 16}
    store = RedisStore(RedisClient(url, **limits))
    by_redis_py = RedisStore(RedisClient(f"{url}?health_check_interval=0", **limits))
    port = int(url.rpartition(":")[2].partition("/")[0])
    wire = socket.create_connection(("127.0.0.1", port))
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def read(keys: list[str]) -> object:
        return await store.read(keys, 5.0)

    async def read_by_redis_py(keys: list[str]) -> object:
        return await by_redis_py.read(keys, 5.0)

    async def floor(keys: list[str]) -> object:
        wire.sendall(pack("MGET", *keys))
        left = len(f"*{len(keys)}\r\n") + len(keys) * (len(f"${ROW_BYTES}\r\n") + ROW_BYTES + 2)
        while left:
            left -= len(wire.recv(1 << 20))
        return keys

    ways: dict[str, Read] = {"our own link": read, "redis-py's": read_by_redis_py, "floor": floor}
    found = await timed(ways, SIZES, key, num_rows=NUM_ROWS, rounds=ROUNDS, warm_up=WARM_UP)
    wire.close()
    await store.close()
    await by_redis_py.close()
    return found


def main() -> None:
    """Run the benchmark and print its table."""
    console = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory() as folder, EmbeddedStore(Path(folder)) as server:
        fill(server.url)
        found = uvloop.run(measure(server.url))
    console.print(f"{NUM_ROWS} rows of {ROW_BYTES} bytes; {ROUNDS} rounds")
    for n in SIZES:
        floor_us = float(np.median(found["floor"][n]))
        for name, by_size in found.items():
            median, p99 = np.percentile(by_size[n], [50, 99])
            ratio = (
                f"  {median / floor_us:.2f}x floor (target {TARGET_RATIO}x at 500)" if name != "floor" else ""
            )
            console.print(f"{n:4} keys  {name:16} median {median:7.1f} us  p99 {p99:7.1f} us{ratio}")


if __name__ == "__main__":
    main()
