"""Letter A of the fault matrix: the store is down, frozen, busy, loading, or not to be found."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from rankd_service.errors import StoreErrorKind
from tests.faults.watched import KEYS, ROWS, Run, Watched
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey, free_port

pytestmark = pytest.mark.usefixtures("both_links")


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
