from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from rankd_contract.encoding import Block
from rankd_service.deadline import SystemClock
from rankd_service.features.change_feed import ChangeFeed
from rankd_service.features.near_cache import NearCache, NearLimits
from rankd_service.features.near_caches import NearCaches
from rankd_service.features.view_rows import ViewRows
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey, free_port

pytestmark = pytest.mark.redis
PREFIX = "rankd:item:0123abcd:"


class Followed:
    """A near cache that hears of a server's changes."""

    def __init__(self, url: str) -> None:
        self.caches = NearCaches(NearLimits(1 << 20, ttl_s=60, stale_s=60, word_s=0.3), SystemClock())
        self.cache: NearCache = self.caches.of(PREFIX, 1, 0)
        self.feed = ChangeFeed(url, self.caches, connect_timeout_s=1.0, clock=SystemClock(), heartbeat_s=0.05)

    def keep(self, *ids: str) -> None:
        self.cache.keep(ids, rows(len(ids)), self.cache.mark())

    def has(self, name: str) -> bool:
        return not len(self.cache.take([name], rows(1)))


def rows(n: int) -> ViewRows:
    """Rows of one id column each."""
    block = Block(np.zeros((n, 1), np.int32), np.zeros((n, 0), np.float32))
    return ViewRows(block, np.zeros(n, np.int64), np.zeros(n, np.int64))


@asynccontextmanager
async def following(url: str) -> AsyncIterator[Followed]:
    followed = Followed(url)
    followed.feed.start()
    try:
        await until(lambda: followed.feed.following)
        yield followed
    finally:
        await followed.feed.stop()


async def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  # a server's doing, which nothing here can wait for
            await asyncio.sleep(0.005)


def test_a_write_under_the_prefix_drops_its_row_and_no_other(own: Valkey) -> None:
    async def main() -> None:
        async with following(own.url) as followed:
            followed.keep("1", "2")
            own.put({f"{PREFIX}2": b"new", "rankd:user:0123abcd:1": b"x"})
            await until(lambda: not followed.has("2"))
            assert followed.has("1")

    asyncio.run(main())


@pytest.mark.parametrize("how", ["DEL", "EXPIRE", "FLUSHALL"])
def test_a_row_that_goes_away_is_dropped(own: Valkey, how: str) -> None:
    async def main() -> None:
        own.put({f"{PREFIX}1": b"x"})
        async with following(own.url) as followed:
            followed.keep("1")
            with own.client() as client:
                if how == "FLUSHALL":
                    client.flushall()
                else:
                    client.execute_command(how, f"{PREFIX}1", *(["0"] if how == "EXPIRE" else []))
            await until(lambda: not followed.has("1"))

    asyncio.run(main())


@pytest.mark.fault("A16")
def test_a_connection_that_is_lost_leaves_nothing_fresh_and_is_made_again(own: Valkey) -> None:
    async def main() -> None:
        async with following(own.url) as followed:
            followed.keep("1")
            with own.client() as client:
                client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                client.set(f"{PREFIX}1", b"written while nobody listened")
            await until(lambda: not followed.has("1"))
            await until(lambda: followed.feed.following)
            assert not followed.has("1")
            followed.keep("1")
            assert followed.has("1")

    asyncio.run(main())


@pytest.mark.fault("A16")
def test_a_server_that_falls_silent_is_not_trusted_and_found_again(own: Valkey) -> None:
    async def main() -> None:
        async with following(own.url) as followed:
            followed.keep("1")
            own.freeze()
            try:
                await until(lambda: not followed.has("1"), within_s=1.0)
                await until(lambda: not followed.feed.following)
            finally:
                own.thaw()
            await until(lambda: followed.feed.following)

    asyncio.run(main())


@pytest.mark.fault("A16")
def test_a_connection_that_swallows_everything_is_noticed(own: Valkey) -> None:
    async def main() -> None:
        async with Proxy(own.port) as proxy, following(proxy.url) as followed:
            followed.keep("1")
            proxy.flowing.clear()
            await until(lambda: not followed.has("1"))
            proxy.flowing.set()

    asyncio.run(main())


def test_a_quiet_server_is_trusted_for_as_long_as_it_answers(own: Valkey) -> None:
    async def main() -> None:
        async with following(own.url) as followed:
            followed.keep("1")
            await asyncio.sleep(0.5)  # ten heartbeats
            assert followed.has("1")
            with own.client() as client:
                received = int(client.info("stats")["total_connections_received"])
            assert received <= 4, "one connection to follow, and those of this test"

    asyncio.run(main())


def test_a_server_that_will_not_tell_leaves_the_cache_unused_and_is_complained_of_once(
    own: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        with own.client() as client:
            client.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+mget", "+ping")
        followed = Followed(f"redis://reader:secret@127.0.0.1:{own.port}/0")
        followed.feed.start()
        await asyncio.sleep(0.3)
        followed.keep("1")
        assert not followed.has("1")
        await followed.feed.stop()

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    (complaint,) = [r for r in caplog.records if "not told of changes" in r.getMessage()]
    assert "allow CLIENT and SUBSCRIBE" in complaint.getMessage()
    assert "secret" not in str(complaint.__dict__)


@pytest.mark.fault("A12")
def test_a_server_that_answers_nothing_but_subscribe_leaves_rows_that_may_stand_in(
    own: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that loads its rows, or a replica that has lost its master."""

    async def main() -> None:
        with own.client() as client:
            async with following(own.url) as followed:
                followed.keep("1")
                client.config_set("replica-serve-stale-data", "no")
                client.execute_command("REPLICAOF", "127.0.0.1", free_port())
                await until(lambda: not followed.feed.following)
                for _ in range(40):
                    await asyncio.sleep(0.02)  # it tries again and again meanwhile
                    assert not followed.feed.following
                    assert not len(followed.cache.take_stale(["1"], rows(1)))
                assert not followed.has("1"), "and is not fresh"
                client.execute_command("REPLICAOF", "NO", "ONE")
                await until(lambda: followed.feed.following)

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert len([r for r in caplog.records if "not told of changes" in r.getMessage()]) <= 2


def test_it_is_started_before_its_server_and_stops_while_there_is_none() -> None:
    async def main() -> None:
        followed = Followed(f"redis://127.0.0.1:{free_port()}/0")
        followed.feed.start()
        await asyncio.sleep(0.1)
        async with asyncio.timeout(2):
            await followed.feed.stop()
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    asyncio.run(main())


@pytest.fixture
def own(tmp_path: Path) -> object:
    with Valkey(tmp_path) as server:
        yield server


@pytest.mark.fault("A16")
def test_a_flood_of_changes_is_heard_as_fast_as_it_comes(own: Valkey) -> None:
    """Whatever else the loop does in between: every turn hears all that has arrived."""

    async def main() -> None:
        async with following(own.url) as followed:
            followed.keep("1")
            with own.client() as client, client.pipeline(transaction=False) as pipe:
                for i in range(20_000):
                    pipe.set(f"{PREFIX}other-{i % 50}", b"x")
                pipe.set(f"{PREFIX}1", b"last")
                await asyncio.to_thread(pipe.execute)
            turns = 0
            while followed.has("1"):
                turns += 1
                time.sleep(0.005)  # noqa: ASYNC251  # as inference does, in the middle of the loop
                await asyncio.sleep(0)
            assert turns < 100

    asyncio.run(main())
