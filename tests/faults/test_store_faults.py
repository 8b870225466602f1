"""Letter A of the fault matrix: what the store does while Redis is down, frozen, slow or talks nonsense."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from rankd_service.errors import StoreErrorKind, StoreUnavailable
from rankd_service.features.redis_client import RedisClient
from rankd_service.features.redis_store import RedisStore
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey, free_port

KEYS = [f"key:{i}" for i in range(400)]
ROWS = {key: key.encode().ljust(200, b".") for key in KEYS}

Scenario = Callable[[], Awaitable[None]]
Run = Callable[[Scenario], None]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server that tests look at through proxies and leave as it is."""
    with Valkey(tmp_path_factory.mktemp("shared")) as server:
        server.put(ROWS)
        yield server


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Valkey]:
    """A server to kill and to freeze."""
    with Valkey(tmp_path) as server:
        server.put(ROWS)
        yield server


@pytest.fixture(params=["our own links", "redis-py"], autouse=True)
def _links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise everything of both kinds of links."""
    monkeypatch.setattr(Watched, "by_redis_py", request.param == "redis-py")


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a scenario on each kind of event loop."""

    def run_it(scenario: Scenario) -> None:
        async def main() -> None:
            await scenario()

        (uvloop.run if request.param == "uvloop" else asyncio.run)(main())

    return run_it


class Watched:
    """A store, the errors it reported, and whether every row it gave was the one asked for."""

    by_redis_py = False

    def __init__(
        self,
        url: str,
        *,
        connections: int = 4,
        connect_timeout_s: float = 1.0,
        read_timeout_s: float = 2.0,
        max_outstanding: int = 64,
    ) -> None:
        self.errors: Counter[StoreErrorKind] = Counter()
        self.foreign = 0
        client = RedisClient(
            # An option in the address is what our own links leave to redis-py.
            f"{url}?health_check_interval=0" if self.by_redis_py else url,
            connections=connections,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
            max_outstanding=max_outstanding,
            on_error=lambda kind: self.errors.update([kind]),
        )
        self.store = RedisStore(client)

    async def __aenter__(self) -> Watched:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()

    async def read(self, keys: list[str] = KEYS[:20], budget_s: float = 5.0) -> StoreErrorKind | None:
        """Read, and return the kind of failure or None."""
        try:
            rows = await self.store.read(keys, budget_s)
        except StoreUnavailable as failure:
            return failure.kind
        self.foreign += sum(row != ROWS.get(key) for key, row in zip(keys, rows, strict=True))
        return None

    async def until_normal(self, limit_s: float) -> float:
        """Read until an answer comes -> seconds it took."""
        started = time.monotonic()
        while await self.read(budget_s=0.05) is not None:
            assert time.monotonic() - started < limit_s
            await asyncio.sleep(0.005)
        return time.monotonic() - started

    async def until_drained(self) -> None:
        while self.store.outstanding:  # noqa: ASYNC110  # nobody is told when the last reply is drained
            await asyncio.sleep(0.001)


@pytest.mark.fault("A1")
def test_a_killed_server_is_refused_from_the_first_read_on_and_found_again(own: Valkey, run: Run) -> None:
    async def scenario() -> None:
        async with Watched(own.url) as watched:
            assert await asyncio.gather(*(watched.read() for _ in range(8))) == [None] * 8
            own.kill()
            started = time.monotonic()
            kinds = Counter([await watched.read() for _ in range(500)])
            assert set(kinds) <= {StoreErrorKind.REFUSED, StoreErrorKind.RESET}
            assert time.monotonic() - started < 1.0  # none of them waited
            own.start()
            own.put(ROWS)
            assert await watched.until_normal(limit_s=2.0) < 2.0
            assert watched.foreign == 0

    run(scenario)


@pytest.mark.fault("A1")
def test_a_server_that_is_down_meets_one_attempt_a_step() -> None:
    attempts = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        writer.transport.abort()

    async def scenario() -> None:
        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        async with server:
            url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with Watched(url, connections=16) as watched:
                started = time.monotonic()
                while time.monotonic() - started < 0.6:
                    await asyncio.gather(*(watched.read() for _ in range(16)))

    asyncio.run(scenario())
    # All connections may try once; then steps of 25 to 50 ms, doubling: at most 5 fit into 0.6 s.
    assert 2 <= attempts <= 16 + 6


@pytest.mark.fault("A2")
def test_a_freeze_of_half_a_second_costs_no_connection_and_late_replies_are_drained(
    own: Valkey, run: Run
) -> None:
    async def scenario() -> None:
        async with Watched(own.url) as watched:
            await asyncio.gather(*(watched.read() for _ in range(16)))
            before = own.connections_received()
            own.freeze()
            started, waits = time.monotonic(), []
            while time.monotonic() - started < 0.5:
                asked = time.monotonic()
                kind = await watched.read(random.sample(KEYS, 20), budget_s=0.02)
                waits.append(time.monotonic() - asked)
                assert kind in {StoreErrorKind.TIMEOUT, StoreErrorKind.BREAKER_OPEN}
            assert watched.store.abandoned > 4
            own.thaw()
            await watched.until_drained()
            assert watched.store.abandoned == 0
            assert await watched.read(KEYS) is None
            assert own.connections_received() - before == 1  # the question itself, asked twice
            assert watched.store.connections_opened <= 4
            assert sorted(waits)[len(waits) // 2] < 0.06
            assert watched.foreign == 0

    run(scenario)


@pytest.mark.fault("A3")
def test_a_long_freeze_soon_costs_requests_nothing_and_ends_by_itself(own: Valkey) -> None:
    async def scenario() -> None:
        async with Watched(own.url, read_timeout_s=0.2, connect_timeout_s=0.1) as watched:
            await watched.read()
            own.freeze()
            started = time.monotonic()
            while time.monotonic() - started < 1.0:
                await watched.read(budget_s=0.02)
                await asyncio.sleep(0)
            asked = time.monotonic()
            kinds = Counter([await watched.read(budget_s=0.02) for _ in range(200)])
            assert time.monotonic() - asked < 0.5
            assert set(kinds) <= {StoreErrorKind.TIMEOUT, StoreErrorKind.BREAKER_OPEN}
            own.thaw()
            assert await watched.until_normal(limit_s=2.0) < 1.5

    asyncio.run(scenario())


@pytest.mark.fault("A4")
def test_a_slow_server_costs_the_budget_and_no_more(shared: Valkey) -> None:
    async def scenario() -> None:
        async with Proxy(shared.port) as proxy, Watched(proxy.url) as watched:
            assert await watched.read() is None
            proxy.delay_s = lambda: 0.002
            assert await watched.read(budget_s=1.0) is None
            proxy.delay_s = lambda: 0.2
            asked = time.monotonic()
            assert await watched.read(budget_s=0.02) is StoreErrorKind.TIMEOUT
            assert time.monotonic() - asked < 0.1
            proxy.delay_s = lambda: 0.0
            await watched.until_drained()
            assert await watched.read(budget_s=1.0) is None
            assert proxy.accepted == 1
            assert watched.foreign == 0

    asyncio.run(scenario())


@pytest.mark.fault("A5")
def test_a_reply_that_trickles_in_is_whole_or_late(shared: Valkey, run: Run) -> None:
    async def scenario() -> None:
        async with Proxy(shared.port) as proxy, Watched(proxy.url) as watched:
            proxy.trickle = True
            assert await watched.read(KEYS[:5]) is None
            assert await watched.read(KEYS[:20], budget_s=0.001) is StoreErrorKind.TIMEOUT
            assert await asyncio.gather(*(watched.read(KEYS[i : i + 5]) for i in range(6))) == [None] * 6
            assert watched.foreign == 0

    run(scenario)


@pytest.mark.fault("A6")
def test_a_server_that_accepts_and_says_nothing_costs_one_budget_a_step(shared: Valkey) -> None:
    async def scenario() -> None:
        async with Proxy(shared.port) as proxy, Watched(proxy.url, connect_timeout_s=0.05) as watched:
            proxy.swallow = True
            assert await watched.read(budget_s=0.02) is StoreErrorKind.TIMEOUT
            await watched.until_drained()
            asked = time.monotonic()
            kinds = Counter([await watched.read(budget_s=0.5) for _ in range(100)])
            assert set(kinds) == {StoreErrorKind.TIMEOUT}
            assert time.monotonic() - asked < 1.0
            assert proxy.accepted <= 8
            proxy.swallow = False
            assert await watched.until_normal(limit_s=2.0) < 2.0

    asyncio.run(scenario())


@pytest.mark.fault("A6")
def test_an_exchange_without_end_ends_with_its_connection(shared: Valkey) -> None:
    async def scenario() -> None:
        async with Proxy(shared.port) as proxy, Watched(proxy.url, read_timeout_s=0.1) as watched:
            assert await watched.read() is None
            proxy.flowing.clear()
            assert await watched.read() is StoreErrorKind.TIMEOUT
            assert watched.store.outstanding == 0
            proxy.flowing.set()
            assert await watched.read() is None
            assert proxy.accepted == 2

    asyncio.run(scenario())


@pytest.mark.fault("A7")
@pytest.mark.parametrize("end", ["cut", "reset"])
@pytest.mark.parametrize("at", [0, 1, 3, 100, 5000])
def test_a_reply_cut_off_costs_its_connection_and_no_other_request(
    end: str, at: int, shared: Valkey, run: Run
) -> None:
    async def scenario() -> None:
        async with Proxy(shared.port) as proxy, Watched(proxy.url, connections=1) as watched:
            for attempt in range(3):
                assert await watched.read(KEYS) is None
                setattr(proxy, f"{end}_after", at)
                # Tried once more, since the connection was an idle one that the server may just have closed.
                assert await watched.read(KEYS) is None
                assert proxy.accepted == attempt + 2
            assert watched.foreign == 0

    run(scenario)


@pytest.mark.fault("A7")
def test_a_reply_cut_off_on_a_fresh_connection_is_told(shared: Valkey, run: Run) -> None:
    async def scenario() -> None:
        async with Proxy(shared.port) as proxy, Watched(proxy.url, connections=1) as watched:
            assert await watched.read() is None
            cuts = 0

            def cut_again(chunk: bytes) -> bytes:
                nonlocal cuts
                if chunk.startswith(b"*") and cuts < 2:
                    cuts += 1
                    proxy.cut_after = len(chunk) // 2
                return chunk

            proxy.corrupt = cut_again
            assert await watched.read() is StoreErrorKind.RESET
            assert watched.errors == {StoreErrorKind.RESET: 1}
            assert await watched.read() is None
            assert watched.foreign == 0

    run(scenario)


GARBAGE = {
    "a reply too many": b"+OK\r\n",
    "an array too many": b"*1\r\n$3\r\nabc\r\n",
    "a nil array": b"*-1\r\n",
    "numbers for rows": b"*20\r\n" + b":1\r\n" * 20,
    "arrays for rows": b"*20\r\n" + b"*0\r\n" * 20,
    "errors for rows": b"*20\r\n" + b"-ERR x\r\n" * 20,
    "an unknown type": b"@x\r\n",
    "a web server": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "zeros": bytes(64),
    "a length of nonsense": b"$x\r\n",
    "a negative length": b"*-7\r\n",
    "an endless length": b"*9223372036854775807\r\n",
    "a moved slot of nonsense": b"-MOVED\r\n",
    "no text": b"-\xff\xfe\r\n",
    "a push": b">2\r\n+a\r\n+b\r\n",
    "a map": b"%1\r\n+a\r\n+b\r\n",
    "a double": b",1.5\r\n",
}


@pytest.mark.fault("A8")
@pytest.mark.parametrize("what", list(GARBAGE))
def test_garbage_closes_the_connection_and_is_nobodys_reply(what: str, shared: Valkey) -> None:
    async def scenario() -> None:
        async with Proxy(shared.port) as proxy, Watched(proxy.url, connections=1) as watched:
            assert await watched.read() is None
            proxy.insert = GARBAGE[what]
            kind = await watched.read(budget_s=0.5)
            garbled = {
                StoreErrorKind.PROTOCOL,
                StoreErrorKind.REPLY,
                StoreErrorKind.RESET,
                StoreErrorKind.MOVED,
            }
            assert kind in {None, *garbled}
            for _ in range(3):
                assert await watched.read() is None
            assert watched.foreign == 0
            assert watched.store.outstanding == 0

    asyncio.run(scenario())


@pytest.mark.fault("A8")
def test_a_reply_that_nobody_asked_for_is_not_read_by_the_next_request(shared: Valkey) -> None:
    async def scenario() -> None:
        async with Proxy(shared.port) as proxy, Watched(proxy.url, connections=1) as watched:
            assert await watched.read(KEYS[:2]) is None
            # Behind a whole reply, and shaped like the reply to the next question.
            forged = b"*2\r\n$7\r\nforeign\r\n$7\r\nforeign\r\n"
            proxy.corrupt = lambda chunk: chunk + forged
            assert await watched.read(KEYS[2:4]) is None
            proxy.corrupt = lambda chunk: chunk
            assert await watched.read(KEYS[4:6]) is None
            assert watched.foreign == 0
            assert proxy.accepted == 2

    asyncio.run(scenario())


@pytest.mark.fault("A8")
def test_random_bytes_never_become_rows(shared: Valkey) -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)

    def scramble(chunk: bytes) -> bytes:
        if not chunk.startswith(b"*") or rng.random() < 0.3:
            return chunk
        at = rng.randrange(min(len(chunk), 12))
        return chunk[:at] + rng.randbytes(rng.randrange(1, 4)) + chunk[at + 2 :]

    async def scenario() -> None:
        async with Proxy(shared.port) as proxy, Watched(proxy.url, read_timeout_s=0.02) as watched:
            proxy.corrupt = scramble
            for _ in range(150):
                kind = await watched.read(KEYS[:3], budget_s=0.5)
                assert kind not in {StoreErrorKind.BUSY, StoreErrorKind.AUTH}, seed
            proxy.corrupt = lambda chunk: chunk
            await watched.until_normal(limit_s=2.0)

    asyncio.run(scenario())


@pytest.mark.fault("A9")
def test_in_a_storm_of_cancellations_every_reply_meets_its_own_keys(shared: Valkey, run: Run) -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)

    async def scenario() -> None:
        async with Proxy(shared.port) as proxy, Watched(proxy.url, max_outstanding=256) as watched:
            proxy.delay_s = lambda: rng.random() * 0.004
            outcomes: Counter[str] = Counter()

            async def one() -> None:
                keys = rng.sample(KEYS, rng.randrange(1, 8))
                kind = await watched.read(keys, budget_s=rng.choice([0.001, 0.005, 0.02, 1.0]))
                outcomes[kind or "rows"] += 1

            async def hang_up(task: asyncio.Task[None]) -> None:
                await asyncio.sleep(rng.random() * 0.01)
                outcomes["hung up"] += task.cancel()

            tasks = []
            for turn in range(2000):
                task = asyncio.create_task(one())
                tasks.append(task)
                if rng.random() < 0.5:
                    tasks.append(asyncio.create_task(hang_up(task)))
                if turn % 20 == 0:
                    await asyncio.sleep(rng.random() * 0.01)
                if turn % 250 == 125:
                    proxy.reset_after = rng.randrange(40)
            await asyncio.gather(*tasks, return_exceptions=True)
            await watched.until_drained()
            assert watched.foreign == 0, seed
            assert outcomes["rows"] > 100, outcomes
            assert outcomes["hung up"] > 100, outcomes
            assert watched.store.abandoned == 0
            assert await watched.read(KEYS) is None

    run(scenario)


@pytest.mark.fault("A10")
def test_more_callers_than_the_store_will_take_are_told_at_once(shared: Valkey) -> None:
    async def scenario() -> None:
        async with Proxy(shared.port) as proxy, Watched(proxy.url, connections=8) as watched:
            assert await asyncio.gather(*(watched.read() for _ in range(8))) == [None] * 8
            proxy.flowing.clear()
            callers = [asyncio.create_task(watched.read(budget_s=5.0)) for _ in range(500)]
            started = time.monotonic()
            done, waiting = await asyncio.wait(callers, timeout=0.3)
            assert {task.result() for task in done} == {StoreErrorKind.BUSY}
            assert (len(done), len(waiting)) == (500 - 64, 64)
            asked = time.monotonic()
            assert await watched.read() is StoreErrorKind.BUSY
            assert time.monotonic() - asked < 0.05
            assert watched.errors[StoreErrorKind.BUSY] == 500 - 64 + 1
            proxy.flowing.set()
            assert await asyncio.gather(*waiting) == [None] * 64
            assert time.monotonic() - started < 2
            assert watched.store.outstanding == 0
            assert proxy.accepted <= 8
            assert watched.foreign == 0

    asyncio.run(scenario())


@pytest.mark.fault("A11")
def test_idle_connections_that_the_server_closed_are_not_noticed(own: Valkey, run: Run) -> None:
    async def scenario() -> None:
        async with Watched(own.url) as watched:
            for _ in range(10):
                assert await asyncio.gather(*(watched.read() for _ in range(4))) == [None] * 4
                with own.client() as client:
                    client.client_kill_filter(_type="normal", skipme=True)
            assert await watched.read() is None
            assert not watched.errors
            assert watched.foreign == 0

    run(scenario)


@pytest.mark.fault("A12")
def test_a_server_that_is_loading_is_down_and_not_empty(own: Valkey) -> None:
    with own.client() as client:
        client.save()
    own.kill()
    own.arguments = ("--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024")
    own.start(wait=False)
    own.wait_until_it_logs("Loading RDB")

    async def scenario() -> None:
        async with Watched(own.url) as watched:
            kinds = [await watched.read()]
            while StoreErrorKind.REFUSED in kinds:
                kinds = [await watched.read()]
            assert kinds == [StoreErrorKind.LOADING]
            assert await watched.until_normal(limit_s=2.5) < 2.5
            assert watched.foreign == 0

    asyncio.run(scenario())


@pytest.mark.fault("A13")
def test_a_wrong_password_is_an_auth_error_and_no_hot_loop(tmp_path: Path) -> None:
    with Valkey(tmp_path, "--requirepass", "right") as server:
        for userinfo in ("", ":wrong@", "nobody:right@"):

            async def scenario(userinfo: str = userinfo) -> None:
                url = f"redis://{userinfo}127.0.0.1:{server.port}/0"
                async with Watched(url) as watched:
                    kinds = Counter([await watched.read() for _ in range(200)])
                    assert set(kinds) == {StoreErrorKind.AUTH}
                    with pytest.raises(StoreUnavailable) as failure:
                        await watched.store.read(KEYS, 1.0)
                    assert "wrong" not in str(failure.value).replace("invalid", "")
                    assert "right" not in str(failure.value)

            asyncio.run(scenario())
        with server.client(password="right") as client:
            assert int(client.info("stats")["total_connections_received"]) < 20


@pytest.mark.fault("A13")
def test_a_user_without_permission_is_an_auth_error(own: Valkey) -> None:
    with own.client() as client:
        client.acl_setuser(
            "reader", enabled=True, passwords=["+pw"], keys=["other:*"], commands=["+mget", "+ping"]
        )

    async def scenario() -> None:
        async with Watched(f"redis://reader:pw@127.0.0.1:{own.port}") as watched:
            assert await watched.read() is StoreErrorKind.AUTH
            assert await watched.store.ping(1.0)

    asyncio.run(scenario())


@pytest.mark.fault("A13")
def test_a_key_of_another_type_is_a_missing_row_and_its_neighbours_are_read(own: Valkey) -> None:
    with own.client() as client:
        client.delete(KEYS[1])
        client.rpush(KEYS[1], "not", "a", "row")

    async def scenario() -> None:
        async with Watched(own.url) as watched:
            rows = await watched.store.read(KEYS[:3], 1.0)
            assert rows == [ROWS[KEYS[0]], None, ROWS[KEYS[2]]]

    asyncio.run(scenario())


@pytest.mark.fault("A13")
@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("-NOAUTH Authentication required.", StoreErrorKind.AUTH),
        ("-NOPERM no permission", StoreErrorKind.AUTH),
        ("-WRONGPASS invalid username-password pair", StoreErrorKind.AUTH),
        ("-ERR Protocol error: unauthenticated multibulk length", StoreErrorKind.AUTH),
        ("-LOADING dataset in memory", StoreErrorKind.LOADING),
        ("-MASTERDOWN Link with MASTER is down", StoreErrorKind.LOADING),
        ("-BUSY running a script", StoreErrorKind.REPLY),
        ("-READONLY You can't write", StoreErrorKind.REPLY),
        ("-OOM command not allowed", StoreErrorKind.REPLY),
        ("-CLUSTERDOWN Hash slot not served", StoreErrorKind.CLUSTER_DOWN),
        ("-MOVED 3999 127.0.0.1:6381", StoreErrorKind.MOVED),
        ("-TRYAGAIN Multiple keys", StoreErrorKind.REPLY),
        ("-CROSSSLOT Keys in request", StoreErrorKind.REPLY),
        ("-ERR unknown command", StoreErrorKind.REPLY),
        ("-SOMETHING new", StoreErrorKind.REPLY),
    ],
)
def test_every_error_a_server_replies_with_has_a_kind(
    line: str, kind: StoreErrorKind, shared: Valkey
) -> None:
    async def scenario() -> None:
        async with Proxy(shared.port) as proxy, Watched(proxy.url, connections=1) as watched:
            assert await watched.read() is None
            proxy.corrupt = lambda chunk: f"{line}\r\n".encode()
            assert await watched.read() is kind
            proxy.corrupt = lambda chunk: chunk
            assert await watched.until_normal(limit_s=1.0) < 1.0
            assert watched.errors[kind] >= 1

    asyncio.run(scenario())


@pytest.mark.fault("A17")
def test_a_huge_value_under_one_key_blocks_nothing(own: Valkey) -> None:
    with own.client() as client:
        client.set("huge", bytes(64 << 20))

    async def scenario() -> None:
        async with Watched(own.url) as watched:
            await watched.read()
            longest, last = 0.0, time.monotonic()
            read = asyncio.create_task(watched.store.read([KEYS[0], "huge", KEYS[1]], 5.0))
            while not read.done():
                assert await watched.read(budget_s=1.0) is None
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
            rows = await read
            assert rows[0] == ROWS[KEYS[0]]
            assert len(rows[1] or b"") == 64 << 20
            assert longest < 0.5

    asyncio.run(scenario())


@pytest.mark.fault("A18")
def test_a_name_that_does_not_resolve_is_a_refused_connection() -> None:
    async def scenario() -> None:
        async with Watched("redis://no-such-host.invalid:6379", connect_timeout_s=2.0) as watched:
            assert await watched.read() in {StoreErrorKind.REFUSED, StoreErrorKind.TIMEOUT}
            asked = time.monotonic()
            assert await watched.read() is not None
            assert time.monotonic() - asked < 0.05

    asyncio.run(scenario())


@pytest.mark.fault("G6")
def test_a_store_is_made_and_asked_while_there_is_no_server_and_finds_it_later(
    tmp_path: Path, run: Run
) -> None:
    async def scenario() -> None:
        port = free_port()
        async with Watched(f"redis://127.0.0.1:{port}") as watched:
            assert await watched.read() is StoreErrorKind.REFUSED
            assert not await watched.store.ping(0.1)
            with Valkey(tmp_path, port=port) as server:
                server.put(ROWS)
                assert await watched.until_normal(limit_s=2.0) < 2.0
                assert await watched.store.ping(0.5)

    run(scenario)


@pytest.mark.fault("A8")
def test_a_reply_too_many_to_the_greeting_leaks_nothing(shared: Valkey) -> None:
    async def scenario() -> None:
        async with Proxy(shared.port) as proxy, Watched(proxy.url, connections=2) as watched:
            proxy.corrupt = lambda chunk: chunk + b"+OK\r\n"
            for _ in range(6):
                assert await watched.read(budget_s=0.5) is not None
                await asyncio.sleep(0.06)
            proxy.corrupt = lambda chunk: chunk
            await watched.until_normal(limit_s=3.0)
            assert watched.store.outstanding == 0

    asyncio.run(scenario())
