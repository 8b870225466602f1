"""Letter A of the fault matrix behind sentinels: the primary goes, and another server takes its place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rankd_service.deadline import SystemClock
from rankd_service.errors import StoreErrorKind, StoreUnavailable
from rankd_service.features.change_feed import ChangeFeed
from rankd_service.features.near_cache import NearLimits
from rankd_service.features.near_caches import NearCaches
from rankd_service.features.redis_client import RedisClient
from rankd_service.features.redis_connection import BlockingConnection, pack
from rankd_service.features.redis_store import RedisStore
from tests.support.valkey_sentinels import ValkeySentinels

pytestmark = [pytest.mark.fault, pytest.mark.redis]

ROWS = {f"key:{i}": f"row {i}".encode() for i in range(50)}
KEYS = list(ROWS)
WHILE_IT_IS_GONE = {
    *(StoreErrorKind.REFUSED, StoreErrorKind.RESET, StoreErrorKind.TIMEOUT, StoreErrorKind.BREAKER_OPEN)
}
BY_REDIS_PY = "?health_check_interval=0"


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[ValkeySentinels]:
    with ValkeySentinels(tmp_path) as servers:
        servers.put(ROWS)
        yield servers


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeySentinels]:
    """Servers that stay as they are."""
    with ValkeySentinels(tmp_path_factory.mktemp("shared")) as servers:
        yield servers


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[RedisStore]:
    client = RedisClient(url, connections=4, connect_timeout_s=0.5, read_timeout_s=0.5, max_outstanding=64)
    store = RedisStore(client)
    try:
        yield store
    finally:
        await store.close()


async def until_read(store: RedisStore, within_s: float) -> float:
    """Read until the rows come, and no wrong ones -> seconds it took."""
    started = time.monotonic()
    while True:
        try:
            assert await store.read(KEYS, 0.2) == list(ROWS.values())
        except StoreUnavailable as failure:
            if failure.kind not in WHILE_IT_IS_GONE or time.monotonic() - started > within_s:
                raise
            await asyncio.sleep(0.02)
        else:
            return time.monotonic() - started


@pytest.mark.parametrize(
    ("how", "options"),
    [
        pytest.param("killed", "", id="killed-our own links"),
        pytest.param("frozen", "", id="frozen-our own links"),
        pytest.param("killed", BY_REDIS_PY, id="killed-redis-py"),
        pytest.param("frozen", BY_REDIS_PY, id="frozen-redis-py", marks=pytest.mark.slow),
    ],
)
def test_when_the_primary_goes_the_server_that_takes_its_place_is_read(
    watched: ValkeySentinels, options: str, how: str
) -> None:
    async def main() -> None:
        async with reading(watched.url + options) as store:
            await until_read(store, within_s=3.0)
            (watched.primary.kill if how == "killed" else watched.primary.freeze)()
            with pytest.raises(StoreUnavailable):
                await store.read(KEYS, 0.1)
            await until_read(store, within_s=15.0)
            with watched.replica.client() as client:
                assert client.info("replication")["role"] == "master"

    asyncio.run(main())


def test_changes_are_heard_from_whoever_is_the_primary(watched: ValkeySentinels) -> None:
    async def main() -> None:
        caches = NearCaches(NearLimits(1 << 20, ttl_s=60, stale_s=60, word_s=1.0), SystemClock())
        cache = caches.of("key:", 1, 0)
        feed = ChangeFeed(watched.url, caches, connect_timeout_s=0.5, clock=SystemClock())
        feed.start()
        try:
            await until(lambda: feed.following)
            watched.primary.kill()
            await until(lambda: not feed.following)
            await until(lambda: feed.following)
            before = cache.mark()
            await asyncio.to_thread(watched.replica.put, {"key:1": b"new"})
            await until(lambda: cache.mark() > before)
        finally:
            await feed.stop()

    async def until(condition: object) -> None:
        async with asyncio.timeout(15):
            while not condition():  # type: ignore[operator]  # noqa: ASYNC110  # a server's doing
                await asyncio.sleep(0.01)

    asyncio.run(main())


def test_bulk_work_finds_the_primary_too(shared: ValkeySentinels) -> None:
    connection = BlockingConnection(shared.url, timeout_s=5.0)
    connection.send(pack("SET", "written", b"there") + pack("GET", "written"))
    assert (connection.receive(), connection.receive()) == (b"OK", b"there")
    connection.close()


def test_a_service_that_no_sentinel_knows_is_refused_by_name(shared: ValkeySentinels) -> None:
    async def main() -> None:
        async with reading(shared.url.replace("/features", "/nobody")) as store:
            with pytest.raises(StoreUnavailable, match="nobody") as failure:
                await store.read(KEYS, 2.0)
            assert failure.value.kind is StoreErrorKind.REFUSED

    asyncio.run(main())
