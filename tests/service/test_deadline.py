from __future__ import annotations

import pytest

from rankd_service.deadline import Deadline, SystemClock
from rankd_service.domain import Stage
from rankd_service.errors import DeadlineExceeded
from tests.support.clock import JumpingClock


def test_a_budget_is_the_stages_cap_while_there_is_time() -> None:
    clock = JumpingClock()
    deadline = Deadline(clock, clock.monotonic_s() + 1.0)
    assert deadline.budget_s(cap_s=0.02, reserve_s=0.005) == 0.02


def test_a_budget_shrinks_so_that_the_reserve_is_kept() -> None:
    clock = JumpingClock()
    deadline = Deadline(clock, clock.monotonic_s() + 0.1)
    clock.jump(0.09)
    assert deadline.budget_s(cap_s=0.02, reserve_s=0.004) == pytest.approx(0.006)
    clock.jump(0.009)
    assert deadline.budget_s(cap_s=0.02, reserve_s=0.004) < 0


def test_nothing_starts_after_the_deadline() -> None:
    clock = JumpingClock()
    deadline = Deadline(clock, clock.monotonic_s() + 0.1)
    deadline.check(Stage.INFER)
    clock.jump(0.1)
    with pytest.raises(DeadlineExceeded, match="before infer"):
        deadline.check(Stage.INFER)


def test_g10_the_wall_clock_does_not_move_a_deadline() -> None:
    clock = JumpingClock()
    deadline = Deadline(clock, clock.monotonic_s() + 0.1)
    clock.move_wall(-3600)
    assert deadline.remaining_s() == pytest.approx(0.1)


def test_the_systems_monotonic_clock_never_goes_back() -> None:
    clock = SystemClock()
    readings = [clock.monotonic_s() for _ in range(1000)]
    assert readings == sorted(readings)
    assert clock.wall_s() > 1.7e9
