from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry

from rankd_service.admission.limit import GradientLimit
from rankd_service.admission.limiter import Limiter, Permit
from rankd_service.domain import Partition
from rankd_service.memory import MemoryWatch
from rankd_service.settings import LimitSettings
from rankd_service.surfaces.door import Door
from rankd_service.telemetry import Telemetry
from tests.support.clock import JumpingClock

PATH = b"/v1/rank/films"


async def overloaded(takes_s: float = 0.010) -> tuple[Door, asyncio.Task[Permit]]:
    """One request inside, one waiting, and every request takes so long."""
    clock = JumpingClock()
    limiter = Limiter(GradientLimit(1, 1, 1), clock, 256)
    for _ in range(50):
        permit = await limiter.enter(Partition.LIVE, clock.monotonic_s() + 10)
        clock.jump(takes_s)
        permit.leave(counts=True)
    await limiter.enter(Partition.LIVE, clock.monotonic_s() + 10)
    waits = asyncio.create_task(limiter.enter(Partition.LIVE, clock.monotonic_s() + 10))
    await asyncio.sleep(0)
    return Door(limiter, LimitSettings(), Telemetry(CollectorRegistry()), MemoryWatch(lambda: 0.0)), waits


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario()

    asyncio.run(main())


@pytest.mark.fault("E1")
def test_those_who_come_in_one_turn_of_the_loop_are_not_all_let_into_the_same_place() -> None:
    """Their tasks begin after the turn; until then the queue does not show them."""

    async def scenario() -> None:
        door, _waits = await overloaded(takes_s=0.010)
        heads = {b"x-deadline-ms": b"100"}
        let_in = [door(b"POST", PATH, heads, 0.0) is None for _ in range(20)]
        assert let_in == sorted(let_in, reverse=True), "the first of them"
        assert 0 < sum(let_in) < 6, "as many as can be answered within half of 100 ms, 10 ms each"
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert door(b"POST", PATH, heads, 0.0) is None, "none of them entered after all"

    run(scenario)


@pytest.mark.fault("E5")
def test_what_waited_longer_than_it_had_time_is_not_let_in() -> None:
    async def scenario() -> None:
        door, _waits = await overloaded()
        heads = {b"x-deadline-ms": b"250"}
        said = door(b"POST", PATH, heads, 0.25)
        assert said is not None
        assert b"DEADLINE_INFEASIBLE" in said
        assert said.startswith(b"HTTP/1.1 503")

    run(scenario)


def test_while_nobody_waits_everybody_is_let_in() -> None:
    async def scenario() -> None:
        limiter = Limiter(GradientLimit(1, 1, 1), JumpingClock(), 256)
        door = Door(limiter, LimitSettings(), Telemetry(CollectorRegistry()), MemoryWatch(lambda: 0.0))
        assert door(b"POST", PATH, {b"x-deadline-ms": b"1"}, 5.0) is None

    run(scenario)
