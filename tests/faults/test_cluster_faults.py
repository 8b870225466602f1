"""Letter A of the fault matrix on a cluster: one primary of three is down, frozen, slow, or elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from rankd_service.errors import IncompleteRead, StoreErrorKind, StoreUnavailable
from rankd_service.features.cluster_store import ClusterStore
from rankd_service.features.redis_client import RedisClient
from rankd_service.features.store_address import NodeAddress, parse_address
from tests.support.valkey_cluster import ValkeyCluster

pytestmark = [pytest.mark.fault, pytest.mark.redis]

KEYS = [f"rankd:item:0123abcd:{i}" for i in range(500)]
ROWS = {key: key.encode().ljust(200, b".") for key in KEYS}
LINKS = {"our own links": "", "redis-py": "/?health_check_interval=0"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    """A cluster whose every node is as it was when a test has ended."""
    with ValkeyCluster(tmp_path_factory.mktemp("shared"), "--cluster-require-full-coverage", "no") as cluster:
        cluster.put(ROWS)
        yield cluster


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ValkeyCluster]:
    """A cluster to break."""
    with ValkeyCluster(tmp_path, "--cluster-require-full-coverage", "no") as cluster:
        cluster.put(ROWS)
        cluster.until_synchronised()
        yield cluster


@asynccontextmanager
async def reading(url: str, read_timeout_s: float = 0.5) -> AsyncIterator[ClusterStore]:
    client = partial(
        RedisClient,
        connections=4,
        connect_timeout_s=0.25,
        read_timeout_s=read_timeout_s,
        max_outstanding=64,
    )
    store = ClusterStore(parse_address(url), client)
    try:
        yield store
    finally:
        await store.close()


async def asked(store: ClusterStore, keys: list[str] = KEYS, budget_s: float = 0.1) -> dict[str, str]:
    """Read -> for each key "row" or the kind of failure; a row that is not the key's own fails the test."""
    try:
        rows = list(await store.read(keys, budget_s))
        lost: dict[int, StoreErrorKind] = {}
    except IncompleteRead as failure:
        rows = list(failure.rows)
        lost = {p: loss.failure.kind for loss in failure.losses for p in loss.positions}
    except StoreUnavailable as failure:
        return dict.fromkeys(keys, failure.kind.value)
    wrong = [key for p, key in enumerate(keys) if p not in lost and rows[p] != ROWS.get(key)]
    assert not wrong
    return {key: lost[p].value if p in lost else "row" for p, key in enumerate(keys)}


async def is_lacking(store: ClusterStore) -> bool:
    try:
        await store.read(KEYS, 0.1)
    except StoreUnavailable:
        return True
    return False


async def until_whole(store: ClusterStore, within_s: float) -> float:
    started = time.monotonic()
    while set((await asked(store)).values()) != {"row"}:
        assert time.monotonic() - started < within_s
        await asyncio.sleep(0.01)
    return time.monotonic() - started


@pytest.mark.parametrize("options", LINKS.values(), ids=LINKS)
def test_a_request_has_the_rows_of_all_primaries_in_its_own_order(
    shared: ValkeyCluster, options: str
) -> None:
    async def main() -> None:
        async with reading(shared.url + options) as store:
            assert set((await asked(store, budget_s=2.0)).values()) == {"row"}
            mixed = [*KEYS[::-7], "not there", KEYS[0], KEYS[0]]
            assert await store.read(mixed, 1.0) == [ROWS.get(key) for key in mixed]
            assert await store.read(KEYS[:1], 1.0) == [ROWS[KEYS[0]]]
            assert await store.read([], 0.0) == []
            assert await store.ping(1.0)

    asyncio.run(main())


def test_ids_with_braces_and_other_bytes_are_where_the_server_looks_for_them(shared: ValkeyCluster) -> None:
    strange = ["a:{b}:c", "a:{}:c", "{b}", "}{", "x{y{z}}", "ключ", "new\r\nline", ""]
    rows = {key: f"row of {key}".encode() for key in strange}
    shared.put(rows)

    async def main() -> None:
        async with reading(shared.url) as store:
            assert await store.read([*strange, *KEYS[:3]], 2.0) == [
                *rows.values(),
                *(ROWS[k] for k in KEYS[:3]),
            ]

    asyncio.run(main())


def test_a_key_of_another_type_is_a_missing_row_and_its_neighbours_are_read(shared: ValkeyCluster) -> None:
    with shared.client() as client:
        client.rpush("a list", "not", "a", "row")

    async def main() -> None:
        async with reading(shared.url) as store:
            assert await store.read([KEYS[0], "a list", KEYS[1]], 2.0) == [ROWS[KEYS[0]], None, ROWS[KEYS[1]]]

    asyncio.run(main())


@pytest.mark.fault("A14")
@pytest.mark.parametrize("options", LINKS.values(), ids=LINKS)
def test_a_killed_primary_loses_its_own_rows_alone_and_its_replica_is_found(
    own: ValkeyCluster, options: str
) -> None:
    theirs = set(own.keys_of(1, KEYS))

    async def main() -> None:
        async with reading(own.url + options) as store:
            await until_whole(store, within_s=5.0)
            own.nodes[1].kill()
            started = time.monotonic()
            for _ in range(50):
                found = await asked(store)
                assert {key for key, what in found.items() if what != "row"} == theirs
            assert set(found.values()) <= {"row", "refused", "reset"}
            assert time.monotonic() - started < 1.0, "no read waits for a node that refuses"
            await asyncio.to_thread(own.until_promoted, 4)
            assert await until_whole(store, within_s=5.0) < 5.0

    asyncio.run(main())


@pytest.mark.fault("A15")
def test_a_frozen_primary_costs_its_own_rows_and_soon_no_time(own: ValkeyCluster) -> None:
    theirs = set(own.keys_of(2, KEYS))

    async def main() -> None:
        async with reading(own.url) as store:
            await until_whole(store, within_s=5.0)
            own.nodes[2].freeze()
            try:
                for _ in range(8):
                    found = await asked(store, budget_s=0.03)
                    assert {key for key, what in found.items() if what != "row"} <= theirs
                asked_at = time.monotonic()
                kinds = Counter([(await asked(store, budget_s=0.03))[min(theirs)] for _ in range(20)])
                assert set(kinds) <= {"timeout", "breaker_open", "row"}
                assert time.monotonic() - asked_at < 0.4
                await asyncio.to_thread(own.until_promoted, 5)
                await until_whole(store, within_s=5.0)
            finally:
                own.nodes[2].thaw()
            # What was the primary is a replica now; whatever it still says of itself is followed or refused.
            for _ in range(20):
                await asked(store)
                await asyncio.sleep(0.02)
            await until_whole(store, within_s=2.0)

    asyncio.run(main())


@pytest.mark.fault("A14")
def test_keys_that_move_while_they_are_read_are_followed(own: ValkeyCluster) -> None:
    """Every step of a slot's move, as `redis-cli --cluster reshard` takes them."""
    import redis

    key = own.keys_of(0, KEYS)[0]
    slot = redis.crc.key_slot(key.encode())

    async def main() -> None:
        async with reading(own.url) as store:
            await until_whole(store, within_s=5.0)
            with own.nodes[0].client() as old, own.nodes[1].client() as new:
                ids = [client.execute_command("CLUSTER", "MYID").decode() for client in (old, new)]
                new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
                old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
                assert (await asked(store))[key] == "row"
                there = ("127.0.0.1", own.nodes[1].port)
                old.execute_command("MIGRATE", *there, "", 0, 5000, "KEYS", key)
                assert set((await asked(store)).values()) == {"row"}, "ASK is followed"
                map_before = store.topology.map
                for client in (new, old):
                    client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
                assert set((await asked(store)).values()) == {"row"}, "MOVED is followed"
            while store.topology.map is map_before:  # noqa: ASYNC110  # as soon as somebody doubts the old one
                await asyncio.sleep(0.01)
            assert set((await asked(store)).values()) == {"row"}

    asyncio.run(main())


@pytest.mark.fault("A14")
def test_with_no_primary_for_a_slot_its_rows_are_lost_and_no_others(own: ValkeyCluster) -> None:
    theirs = set(own.keys_of(1, KEYS))

    async def main() -> None:
        async with reading(own.url) as store:
            await until_whole(store, within_s=5.0)
            own.nodes[4].kill()
            own.nodes[1].kill()
            ends = time.monotonic() + 2.5
            while time.monotonic() < ends:  # the others learn of it and may say so of its keys
                found = await asked(store)
                assert {key for key, what in found.items() if what != "row"} == theirs
                await asyncio.sleep(0.02)
            assert not await store.ping(0.2)
            own.nodes[1].start()
            async with asyncio.timeout(10):
                while await is_lacking(store):  # noqa: ASYNC110  # the node decides when it is back
                    await asyncio.sleep(0.02)
            await asyncio.to_thread(own.put, ROWS)  # it came back empty
            await until_whole(store, within_s=2.0)

    asyncio.run(main())


@pytest.mark.fault("G6")
def test_a_cluster_that_is_not_there_yet_is_found_later_and_costs_little_until_then(
    shared: ValkeyCluster,
) -> None:
    async def main() -> None:
        async with reading("redis+cluster://127.0.0.1:1") as store:
            for _ in range(5):
                started = time.monotonic()
                assert set((await asked(store, budget_s=0.05)).values()) <= {"refused", "timeout"}
                assert time.monotonic() - started < 0.2
            assert not await store.ping(0.05)
            store.topology._seeds = (NodeAddress("127.0.0.1", shared.nodes[3].port),)
            await until_whole(store, within_s=3.0)

    asyncio.run(main())


def test_a_server_that_is_no_cluster_is_told_by_its_own_words(tmp_path: Path) -> None:
    from tests.support.valkey import Valkey

    async def main() -> None:
        with Valkey(tmp_path) as server:
            async with reading(f"redis+cluster://127.0.0.1:{server.port}") as store:
                with pytest.raises(StoreUnavailable, match="cluster support disabled"):
                    await store.read(["a"], 1.0)

    asyncio.run(main())
