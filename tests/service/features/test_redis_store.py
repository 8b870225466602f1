from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from rankd_service.errors import StartupFailed, StoreErrorKind, StoreUnavailable
from rankd_service.features.redis_client import RedisClient
from rankd_service.features.redis_connection import BlockingConnection, pack
from rankd_service.features.redis_store import RedisStore
from rankd_service.features.store import FeatureStore
from rankd_service.features.store_address import shown_url
from tests.support.certificate import certificate_in, serving
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey, free_port

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("valkey")) as running:
        yield running


OPTIONS = {"our own links": "", "redis-py": "?health_check_interval=0"}
suffix = ""


@pytest.fixture(params=list(OPTIONS), autouse=True)
def _links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise everything of both kinds of links; an option in the address is left to redis-py."""
    monkeypatch.setitem(globals(), "suffix", OPTIONS[request.param])


def a_store(url: str, on_error: Callable[[StoreErrorKind], None] | None = None) -> RedisStore:
    client = RedisClient(
        url if "?" in url else url + suffix,
        connections=2,
        connect_timeout_s=1.0,
        read_timeout_s=5.0,
        max_outstanding=8,
        on_error=on_error,
    )
    return RedisStore(client)


def using(url: str, scenario: Callable[[RedisStore], Awaitable[None]]) -> None:
    async def main() -> None:
        store = a_store(url)
        try:
            await scenario(store)
        finally:
            await store.close()

    asyncio.run(main())


def test_values_come_in_the_order_of_the_keys_and_as_the_bytes_they_are(server: Valkey) -> None:
    rows = {"b": bytes(range(256)), "a": b"\r\n$3\r\n", "ключ": b"", "z": b"\xff" * 100_000}
    server.put(rows)

    async def scenario(store: FeatureStore) -> None:
        keys = ["z", "missing", "a", "ключ", "b", "a"]
        assert await store.read(keys, 1.0) == [rows["z"], None, rows["a"], b"", rows["b"], rows["a"]]

    using(server.url, scenario)


def test_no_keys_are_no_round_trip() -> None:
    async def scenario(store: RedisStore) -> None:
        assert await store.read([], 0.0) == []
        assert store.connections_opened == 0

    using(f"redis://127.0.0.1:{free_port()}", scenario)


def test_a_spent_budget_asks_nothing(server: Valkey) -> None:
    async def scenario(store: RedisStore) -> None:
        for budget_s in (0.0, -1.0):
            with pytest.raises(StoreUnavailable) as failure:
                await store.read(["a"], budget_s)
            assert failure.value.kind is StoreErrorKind.TIMEOUT
        assert store.connections_opened == 0

    using(server.url, scenario)


def test_a_caller_that_is_cancelled_leaves_and_its_reply_is_drained(server: Valkey) -> None:
    server.put({"a": b"1", "b": b"2"})

    async def main() -> None:
        async with Proxy(server.port) as proxy:
            store = a_store(proxy.url)
            assert await store.read(["a"], 1.0) == [b"1"]
            proxy.flowing.clear()
            caller = asyncio.create_task(store.read(["a"], 60.0))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
            assert (store.outstanding, store.abandoned) == (1, 1)
            other = asyncio.create_task(store.read(["b"], 60.0))
            await asyncio.sleep(0)
            proxy.flowing.set()
            assert await other == [b"2"]
            assert await store.read(["b"], 1.0) == [b"2"]
            assert (store.outstanding, store.abandoned) == (0, 0)
            await store.close()

    asyncio.run(main())


def test_a_read_given_up_while_it_queued_is_never_sent(server: Valkey) -> None:
    async def main() -> None:
        async with Proxy(server.port) as proxy:
            store = a_store(proxy.url)
            await asyncio.gather(*(store.read(["a"], 1.0) for _ in range(2)))
            with server.client() as client:
                client.config_resetstat()
            proxy.flowing.clear()
            for _ in range(6):
                with pytest.raises(StoreUnavailable):
                    await store.read(["a"], 0.001)
            proxy.flowing.set()
            await store.read(["a"], 1.0)
            with server.client() as client:
                assert client.info("commandstats")["cmdstat_mget"]["calls"] == 3
            await store.close()

    asyncio.run(main())


def test_the_kind_of_every_failed_read_is_reported_once(server: Valkey) -> None:
    seen: list[StoreErrorKind] = []

    async def main() -> None:
        store = a_store(f"redis://127.0.0.1:{free_port()}", seen.append)
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await store.read(["a"], 1.0)
        assert not await store.ping(1.0)
        await store.close()

    asyncio.run(main())
    assert seen == [StoreErrorKind.REFUSED] * 4


def test_ping_tells_whether_the_server_answers(server: Valkey) -> None:
    async def scenario(store: RedisStore) -> None:
        assert await store.ping(1.0)

    using(server.url, scenario)


def test_closing_ends_waiting_reads_and_every_connection(server: Valkey) -> None:
    async def main() -> None:
        async with Proxy(server.port) as proxy:
            store = a_store(proxy.url)
            await asyncio.gather(*(store.read(["a"], 1.0) for _ in range(2)))
            proxy.flowing.clear()
            waiting = [asyncio.create_task(store.read(["a"], 60.0)) for _ in range(4)]
            await asyncio.sleep(0)
            await store.close()
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert [r.kind for r in results if isinstance(r, StoreUnavailable)] == [
                StoreErrorKind.REFUSED
            ] * 4
            assert store.outstanding == 0
            with pytest.raises(StoreUnavailable, match="closed"):
                await store.read(["a"], 1.0)
            await store.close()
            assert not [task for task in asyncio.all_tasks() if "RedisClient" in repr(task.get_coro())]

    asyncio.run(main())


def test_password_user_and_database_of_the_address_are_used(tmp_path: Path) -> None:
    with Valkey(tmp_path, "--requirepass", "pä:ss@word/") as own:
        with own.client(password="pä:ss@word/") as client:
            client.acl_setuser("reader", enabled=True, passwords=["+pw"], keys=["*"], categories=["+@all"])
            client.select(3)
            client.set("a", b"in three")

        async def scenario(store: RedisStore) -> None:
            assert await store.read(["a"], 1.0) == [b"in three"]

        using(f"redis://:p%C3%A4%3Ass%40word%2F@127.0.0.1:{own.port}/3", scenario)
        using(f"redis://reader:pw@127.0.0.1:{own.port}/3", scenario)


def test_a_unix_socket_is_an_address_too(tmp_path: Path) -> None:
    with Valkey(tmp_path, "--unixsocket", "s.sock") as own:
        own.put({"a": b"1"})

        async def scenario(store: RedisStore) -> None:
            assert await store.read(["a"], 1.0) == [b"1"]

        using(f"unix://{tmp_path}/s.sock", scenario)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate_in(tmp_path_factory.mktemp("tls"))


def test_tls_is_spoken_and_the_certificate_checked(server: Valkey, certificate: Path) -> None:
    server.put({"a": b"1"})

    async def main() -> None:
        async with Proxy(server.port, tls=serving(certificate)) as proxy:
            trusting = a_store(f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs={certificate}")
            assert await asyncio.gather(*(trusting.read(["a"], 2.0) for _ in range(4))) == [[b"1"]] * 4
            await trusting.close()
            wary = a_store(f"rediss://127.0.0.1:{proxy.port}/0")
            with pytest.raises(StoreUnavailable, match="certificate") as failure:
                await wary.read(["a"], 2.0)
            assert failure.value.kind is StoreErrorKind.REFUSED
            await wary.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:6379",
        "http://127.0.0.1:6379",
        "redis://127.0.0.1:port",
        "redis://127.0.0.1:99999",
        "redis://127.0.0.1?socket_timeout=soon",
        "redis://127.0.0.1?max_conections=3",
        "redis://:secret@[::1",
    ],
)
def test_an_address_that_is_none_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(StartupFailed, match=r"expected redis://user:password@host:6379/0") as refused:
        a_store(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://user:secret@host/2", "redis://***@host/2"),
        ("rediss://:secret@host:1/0?password=secret&db=3", "rediss://***@host:1/0"),
        ("unix:///run/redis.sock?password=secret", "unix:///run/redis.sock"),
        ("redis://user:secret@host:port", "an unreadable address"),
        ("redis://host?username=secret", "redis://host"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert shown_url(url) == shown
    assert "secret" not in shown_url(url)


def test_neither_a_store_nor_its_errors_show_a_secret() -> None:
    async def scenario(store: RedisStore) -> None:
        assert repr(store).startswith("RedisStore(RedisClient(redis://***@127.0.0.1:")
        with pytest.raises(StoreUnavailable) as failure:
            await store.read(["a"], 1.0)
        assert "secret" not in str(failure.value) + repr(store)

    using(f"redis://user:secret@127.0.0.1:{free_port()}", scenario)


def test_the_address_cannot_bring_back_the_librarys_own_waits(server: Valkey) -> None:
    async def main() -> None:
        async with Proxy(server.port) as proxy:
            options = "socket_timeout=0.001&socket_connect_timeout=0.000001&retry_on_timeout=1&protocol=3"
            store = a_store(f"{proxy.url}?{options}&health_check_interval=1")
            proxy.delay_s = lambda: 0.02
            assert await store.read(["nothing"], 1.0) == [None]
            await store.close()

    asyncio.run(main())


def test_a_blocking_connection_sends_ahead_of_replies(server: Valkey) -> None:
    connection = BlockingConnection(server.url, timeout_s=5.0)
    connection.send(pack("SET", "k", b"\x00\xff") + pack("GET", "k"))
    assert (connection.receive(), connection.receive()) == (b"OK", b"\x00\xff")
    connection.close()


def test_a_blocking_connection_maps_its_errors(server: Valkey) -> None:
    with pytest.raises(StoreUnavailable) as failure:
        BlockingConnection(f"redis://:secret@127.0.0.1:{free_port()}", timeout_s=1.0)
    assert failure.value.kind is StoreErrorKind.REFUSED
    assert "secret" not in str(failure.value)
    with pytest.raises(StartupFailed):
        BlockingConnection("nowhere", timeout_s=1.0)
    connection = BlockingConnection(server.url, timeout_s=5.0)
    connection.send(pack("NONSENSE"))
    with pytest.raises(StoreUnavailable) as failure:
        connection.receive()
    assert failure.value.kind is StoreErrorKind.REPLY
    connection.close()
