from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from rankd_service.admission.limit import GradientLimit
from rankd_service.admission.limiter import Limiter, Permit
from rankd_service.domain import Partition
from rankd_service.errors import RejectReason, Unavailable
from tests.support.clock import JumpingClock

LIVE, BATCH = Partition.LIVE, Partition.BATCH


def a_limiter(limit: int, most_waiting: int = 10) -> tuple[Limiter, JumpingClock]:
    clock = JumpingClock()
    return Limiter(
        GradientLimit(limit, limit, limit), clock, most_waiting, share=lambda low, high: high
    ), clock


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario()

    asyncio.run(main())


async def refused(entering: Awaitable[Permit]) -> Unavailable:
    with pytest.raises(Unavailable) as refusal:
        await entering
    return refusal.value


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_up_to_the_limit_enter_at_once_and_the_next_when_one_leaves() -> None:
    async def scenario() -> None:
        limiter, clock = a_limiter(2)
        soon = clock.monotonic_s() + 1
        first, _ = await limiter.enter(LIVE, soon), await limiter.enter(LIVE, soon)
        third = asyncio.create_task(limiter.enter(LIVE, soon))
        await settle()
        assert (limiter.under_way, limiter.waiting, third.done()) == (2, 1, False)
        first.leave(counts=True)
        await third
        assert (limiter.under_way, limiter.waiting) == (2, 0)

    run(scenario)


def test_the_last_place_is_a_live_requests() -> None:
    async def scenario() -> None:
        limiter, clock = a_limiter(3)
        soon = clock.monotonic_s() + 1
        first = await limiter.enter(BATCH, soon)
        await limiter.enter(BATCH, soon)
        third = asyncio.create_task(limiter.enter(BATCH, soon))
        await settle()
        assert not third.done()
        await limiter.enter(LIVE, soon)
        first.leave(counts=True)
        await settle()
        assert not third.done(), "with a live one inside, two are under way, and the last place is kept"
        assert limiter.refusal(LIVE, 1.0) is None

    run(scenario)


def test_those_who_wait_enter_in_order() -> None:
    async def scenario() -> None:
        limiter, clock = a_limiter(1)
        soon, order = clock.monotonic_s() + 1, []

        async def one(name: int) -> None:
            permit = await limiter.enter(LIVE, soon)
            order.append(name)
            await asyncio.sleep(0)
            permit.leave(counts=True)

        await asyncio.gather(*(one(name) for name in range(8)))
        assert order == list(range(8))

    run(scenario)


@pytest.mark.fault("E2")
def test_whom_the_queue_has_no_room_for_is_refused_with_when_to_come_back() -> None:
    async def scenario() -> None:
        limiter, clock = a_limiter(1, most_waiting=3)
        soon = clock.monotonic_s() + 1
        inside = await limiter.enter(LIVE, soon)
        waiting = [asyncio.create_task(limiter.enter(LIVE, soon)) for _ in range(3)]
        await settle()
        refusal = await refused(limiter.enter(LIVE, soon))
        assert (refusal.reason, refusal.retry_after_s) == (RejectReason.QUEUE_FULL, 3.0)
        inside.leave(counts=True)
        for task in waiting:
            (await task).leave(counts=True)
        assert (limiter.under_way, limiter.waiting) == (0, 0)

    run(scenario)


@pytest.mark.fault("E5")
def test_whose_turn_would_come_too_late_is_refused_before_waiting() -> None:
    async def scenario() -> None:
        limiter, clock = a_limiter(1)
        for _ in range(50):  # requests take 10 ms, and others wait meanwhile
            permit = await limiter.enter(LIVE, clock.monotonic_s() + 10)
            behind = asyncio.create_task(limiter.enter(LIVE, clock.monotonic_s() + 10))
            await settle()
            clock.jump(0.01)
            permit.leave(counts=True)
            (await behind).leave(counts=True)
        inside = await limiter.enter(LIVE, clock.monotonic_s() + 10)
        refusal = await refused(limiter.enter(LIVE, clock.monotonic_s() + 0.005))
        assert refusal.reason is RejectReason.DEADLINE_INFEASIBLE
        patient = asyncio.create_task(limiter.enter(LIVE, clock.monotonic_s() + 1))
        await settle()
        assert not patient.done()
        inside.leave(counts=True)
        (await patient).leave(counts=True)

    run(scenario)


@pytest.mark.fault("E5")
def test_a_deadline_that_passes_in_the_queue_ends_the_wait() -> None:
    async def scenario() -> None:
        limiter, clock = a_limiter(1)
        inside = await limiter.enter(LIVE, clock.monotonic_s() + 1)
        refusal = await refused(limiter.enter(LIVE, clock.monotonic_s() + 0.01))
        assert refusal.reason is RejectReason.DEADLINE_INFEASIBLE
        assert limiter.waiting == 0
        inside.leave(counts=True)
        assert limiter.under_way == 0

    run(scenario)


@pytest.mark.fault("E7")
def test_a_caller_that_goes_away_leaves_its_place_to_the_next() -> None:
    async def scenario() -> None:
        limiter, clock = a_limiter(1)
        soon = clock.monotonic_s() + 1
        inside = await limiter.enter(LIVE, soon)
        waiting = [asyncio.create_task(limiter.enter(LIVE, soon)) for _ in range(3)]
        await settle()
        waiting[0].cancel()
        await settle()
        assert limiter.waiting == 2
        inside.leave(counts=True)
        waiting[1].cancel()  # just as its turn came
        await settle()
        permit = await waiting[2]
        assert (limiter.under_way, limiter.waiting) == (1, 0)
        permit.leave(counts=True)
        assert limiter.under_way == 0

    run(scenario)


@pytest.mark.fault("E9")
def test_live_requests_go_first_and_batch_ones_are_not_starved() -> None:
    async def scenario() -> None:
        limiter, clock = a_limiter(4, most_waiting=100)
        soon, order = clock.monotonic_s() + 10, []

        async def one(partition: Partition) -> None:
            permit = await limiter.enter(partition, soon)
            order.append(partition)
            await asyncio.sleep(0)
            permit.leave(counts=True)

        batch = [asyncio.create_task(one(BATCH)) for _ in range(40)]
        await asyncio.sleep(0)
        live = [asyncio.create_task(one(LIVE)) for _ in range(40)]
        await asyncio.gather(*batch, *live)
        first = order[:44]
        assert first.count(LIVE) >= 28, first
        assert first.count(BATCH) >= 4, first

    run(scenario)


@pytest.mark.fault("E12")
def test_requests_that_were_refused_or_failed_say_nothing_about_latency() -> None:
    async def scenario() -> None:
        clock = JumpingClock()
        limit = GradientLimit(8, 2, 64)
        limiter = Limiter(limit, clock, 10)
        for _ in range(100):
            permit = await limiter.enter(LIVE, clock.monotonic_s() + 1)
            clock.jump(0.000_001)
            permit.leave(counts=False)
        assert limit.latency_s == 0
        assert limiter.value == 2, "as at the start"

    run(scenario)


@pytest.mark.fault("E3")
def test_one_stall_of_the_machine_turns_nobody_away_for_long() -> None:
    async def scenario() -> None:
        limiter, clock = a_limiter(2, most_waiting=100)

        async def one(took_s: float) -> bool:
            try:
                permit = await limiter.enter(LIVE, clock.monotonic_s() + 0.25)
            except Unavailable:
                return False
            await asyncio.sleep(0)
            clock.jump(took_s)
            permit.leave(counts=True)
            return True

        for _ in range(100):
            await asyncio.gather(*(one(0.001) for _ in range(8)))
        await asyncio.gather(*(one(12.0 if at == 0 else 0.001) for at in range(8)))
        for _ in range(40):
            await asyncio.gather(*(one(0.001) for _ in range(8)))
        assert all(await asyncio.gather(*(one(0.001) for _ in range(8))))

    run(scenario)
