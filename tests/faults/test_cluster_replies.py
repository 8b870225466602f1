"""Letter A on the way to a cluster's nodes, here plain servers: slow, garbled and misleading replies."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from rankd_service.errors import IncompleteRead, StoreErrorKind, StoreUnavailable
from rankd_service.features.cluster_store import ClusterStore, OpenClient
from rankd_service.features.redis_client import RedisClient
from rankd_service.features.redis_connection import key_slot
from rankd_service.features.slot_map import SLOTS, SlotMap
from rankd_service.features.store_address import NodeAddress, parse_address
from tests.support.certificate import certificate_in, serving
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey

pytestmark = [pytest.mark.fault, pytest.mark.redis]

KEYS = [f"key:{i}" for i in range(200)]
ROWS = {key: f"row of {key}".encode() for key in KEYS}
NEAR = [key for key in KEYS if key_slot(key.encode()) < SLOTS // 2]
FAR = [key for key in KEYS if key not in NEAR]
LINKS = {"our own links": "", "redis-py": "/?health_check_interval=0"}
suffix = ""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("node")) as running:
        running.put(ROWS)
        yield running


@pytest.fixture(params=list(LINKS), autouse=True)
def _links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise everything of both kinds of links."""
    monkeypatch.setitem(globals(), "suffix", LINKS[request.param])


def a_client() -> OpenClient:
    return partial(RedisClient, connections=1, connect_timeout_s=1.0, read_timeout_s=1.0, max_outstanding=64)


@asynccontextmanager
async def reading(near: int, far: int) -> AsyncIterator[ClusterStore]:
    """A store that has half of the slots behind each port and is not told otherwise."""
    nodes = [NodeAddress("127.0.0.1", port) for port in (near, far)]
    store = ClusterStore(parse_address(f"redis+cluster://{nodes[0]}{suffix}"), a_client())
    store.topology.map = SlotMap(nodes, [0] * (SLOTS // 2) + [1] * (SLOTS // 2), epoch=1)
    try:
        yield store
    finally:
        await store.close()


async def lost(store: ClusterStore, budget_s: float = 1.0) -> dict[str, StoreErrorKind]:
    """Read all keys -> what kind of failure lost which; each row that came is its key's own."""
    try:
        rows = await store.read(KEYS, budget_s)
    except IncompleteRead as failure:
        found = {KEYS[p]: loss.failure.kind for loss in failure.losses for p in loss.positions}
        rows = list(failure.rows)
    except StoreUnavailable as failure:
        return dict.fromkeys(KEYS, failure.kind)
    else:
        found = {}
    assert not [k for k, row in zip(KEYS, rows, strict=True) if k not in found and row != ROWS[k]]
    return found


@pytest.mark.fault("A15")
def test_a_slow_node_costs_the_budget_and_its_own_rows(server: Valkey) -> None:
    async def main() -> None:
        async with Proxy(server.port) as proxy, reading(server.port, proxy.port) as store:
            assert await lost(store) == {}
            proxy.delay_s = lambda: 0.3
            asked = time.monotonic()
            assert await lost(store, budget_s=0.03) == dict.fromkeys(FAR, StoreErrorKind.TIMEOUT)
            assert time.monotonic() - asked < 0.2
            proxy.delay_s = lambda: 0.0
            await until_drained(store)
            assert await lost(store) == {}
            assert proxy.accepted == 1, "the late replies were drained, and their link used again"

    asyncio.run(main())


async def until_drained(store: ClusterStore) -> None:
    while store.outstanding:  # noqa: ASYNC110  # nobody is told when the last reply is drained
        await asyncio.sleep(0.001)


SHIFTED: dict[str, Callable[[bytes], bytes]] = {
    "a reply too many": lambda chunk: b"+OK\r\n" + chunk,
    "a row too many": lambda chunk: b"$3\r\nrow\r\n" + chunk,
    "a nil too many": lambda chunk: b"$-1\r\n" + chunk,
    "a row too few": lambda chunk: chunk.partition(b"\r\n")[2].partition(b"\r\n")[2],
    "a row in a row's place": lambda chunk: b"*0\r\n" + chunk.partition(b"\r\n")[2].partition(b"\r\n")[2],
    "garbage": lambda chunk: b"@x\r\n" + chunk,
}


@pytest.mark.fault("A8")
@pytest.mark.parametrize("what", list(SHIFTED))
def test_replies_that_are_not_one_for_each_key_are_nobodys(server: Valkey, what: str) -> None:
    async def main() -> None:
        async with Proxy(server.port) as proxy, reading(server.port, proxy.port) as store:
            assert await lost(store) == {}
            spoilt = False

            def spoil(chunk: bytes) -> bytes:
                nonlocal spoilt
                if spoilt or b"row of" not in chunk:
                    return chunk
                spoilt = True
                return SHIFTED[what](chunk)

            proxy.corrupt = spoil
            kinds = set((await lost(store, budget_s=0.2)).values())
            assert kinds <= {StoreErrorKind.PROTOCOL, StoreErrorKind.TIMEOUT, StoreErrorKind.RESET}
            assert kinds, "it was noticed"
            await until_drained(store)
            for _ in range(3):
                assert await lost(store) == {}

    asyncio.run(main())


@pytest.mark.fault("A9")
def test_in_a_storm_of_budgets_and_resets_every_row_is_its_keys_own(server: Valkey) -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)

    async def main() -> None:
        async with Proxy(server.port) as proxy, reading(server.port, proxy.port) as store:
            proxy.delay_s = lambda: rng.random() * 0.004

            async def one() -> None:
                keys = rng.sample(KEYS, rng.randrange(1, 20))
                try:
                    rows = list(await store.read(keys, rng.choice([0.001, 0.005, 1.0])))
                    missing: set[int] = set()
                except IncompleteRead as failure:
                    rows, missing = list(failure.rows), {p for x in failure.losses for p in x.positions}
                except StoreUnavailable:
                    return
                assert [ROWS[k] for p, k in enumerate(keys) if p not in missing] == [
                    row for p, row in enumerate(rows) if p not in missing
                ], seed

            tasks = []
            for turn in range(600):
                tasks.append(asyncio.create_task(one()))
                if turn % 5 == 0:
                    rng.choice(tasks).cancel()
                    await asyncio.sleep(rng.random() * 0.005)
                if turn % 100 == 50:
                    proxy.reset_after = rng.randrange(40)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert not [r for r in results if isinstance(r, Exception)], seed
            await until_drained(store)
            assert store.abandoned == 0

    asyncio.run(main())


@pytest.mark.fault("A14")
@pytest.mark.parametrize("word", ["MOVED", "ASK"])
def test_a_key_that_keeps_moving_is_followed_once_and_then_lost(server: Valkey, word: str) -> None:
    async def main() -> None:
        async with Proxy(server.port) as proxy, reading(server.port, proxy.port) as store:
            assert await lost(store) == {}
            answers = 0

            def send_on(chunk: bytes) -> bytes:
                nonlocal answers
                answers += b"row of" in chunk
                line = f"-{word} 12345 127.0.0.1:{proxy.port}\r\n".encode()
                return re.sub(rb"\$\d+\r\nrow of [^\r]+\r\n", line, chunk)

            proxy.corrupt = send_on
            assert await lost(store) == dict.fromkeys(FAR, StoreErrorKind.MOVED)
            assert answers == 2

    asyncio.run(main())


def test_tls_is_spoken_to_every_node_and_certificates_are_checked(server: Valkey, tmp_path: Path) -> None:
    certificate = certificate_in(tmp_path)

    async def main() -> None:
        async with Proxy(server.port, tls=serving(certificate)) as proxy:
            node = NodeAddress("127.0.0.1", proxy.port)
            for options, kinds in (
                (f"?ssl_ca_certs={certificate}", set()),
                ("", {StoreErrorKind.REFUSED}),
            ):
                store = ClusterStore(parse_address(f"rediss+cluster://{node}/{options}"), a_client())
                store.topology.map = SlotMap([node], [0] * SLOTS, epoch=1)
                assert set((await lost(store)).values()) == kinds
                await store.close()

    asyncio.run(main())


@pytest.mark.fault("A13")
def test_a_user_with_few_rights_may_read_and_one_without_is_an_auth_error(tmp_path: Path) -> None:
    rights = {"reader": "+get", "nobody": "+set"}
    with Valkey(tmp_path) as own:
        own.put(ROWS)
        with own.client() as client:
            for name, may in rights.items():
                client.acl_setuser(
                    name, enabled=True, passwords=["+pw"], keys=["key:*"], commands=[may, "+ping"]
                )

        async def main() -> None:
            for name in rights:
                node = NodeAddress("127.0.0.1", own.port)
                url = f"redis+cluster://{name}:pw@{node}{suffix}"
                store = ClusterStore(parse_address(url), a_client())
                store.topology.map = SlotMap([node], [0] * SLOTS, epoch=1)
                assert set((await lost(store)).values()) == (
                    set() if name == "reader" else {StoreErrorKind.AUTH}
                )
                await store.close()

        asyncio.run(main())
