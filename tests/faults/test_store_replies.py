"""Letter A of the fault matrix: replies that are slow, cut, nonsense, too many, or nobody's any more."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import pytest

from rankd_service.errors import StoreErrorKind
from tests.faults.watched import KEYS, ROWS, Run, Watched
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey

pytestmark = pytest.mark.usefixtures("both_links")


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
