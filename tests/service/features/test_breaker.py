from __future__ import annotations

from rankd_service.errors import StoreErrorKind
from rankd_service.features.breaker import FIRST_STEP_S, LONGEST_STEP_S, Breaker

REFUSED = (StoreErrorKind.REFUSED, "nobody there")
LOADING = (StoreErrorKind.LOADING, "in a moment")


def gate() -> Breaker:
    return Breaker(share=lambda low, high: high)


def test_everybody_may_connect_while_nothing_failed() -> None:
    fresh = gate()
    assert [fresh.refusal(0.0) for _ in range(5)] == [None] * 5


def test_after_a_failure_everybody_is_refused_with_its_reason_until_the_step_is_over() -> None:
    shut = gate()
    shut.failed(0.0, 0.0, REFUSED)
    assert shut.refusal(0.9 * FIRST_STEP_S) == REFUSED
    assert shut.refusal(FIRST_STEP_S) is None


def test_a_step_lets_one_attempt_through() -> None:
    shut = gate()
    shut.failed(0.0, 0.0, REFUSED)
    assert [shut.refusal(FIRST_STEP_S) for _ in range(3)] == [None, REFUSED, REFUSED]


def test_steps_double_up_to_the_longest() -> None:
    shut, now, steps = gate(), 0.0, []
    for _ in range(40):
        shut.failed(now, now, REFUSED)
        began = now
        while shut.refusal(now) is not None:
            now += FIRST_STEP_S / 10
        steps.append(round((now - began) / FIRST_STEP_S))
    assert steps[:5] == [1, 2, 4, 8, 16]
    assert set(steps[5:]) == {round(LONGEST_STEP_S / FIRST_STEP_S)}


def test_attempts_that_fail_together_are_one_step() -> None:
    shut = gate()
    for i in range(16):
        shut.failed(0.0, 0.001 * i, REFUSED)
    assert shut.refusal(FIRST_STEP_S) is None


def test_the_latest_reason_is_given() -> None:
    shut = gate()
    shut.failed(0.0, 0.0, REFUSED)
    shut.failed(1.0, 1.0, LOADING)
    assert shut.refusal(1.0) == LOADING


def test_an_answer_opens_the_gate_and_forgets_the_steps() -> None:
    shut = gate()
    for second in range(10):
        shut.failed(second, second, REFUSED)
    shut.passed()
    assert [shut.refusal(10.0) for _ in range(3)] == [None] * 3
    shut.failed(11.0, 11.0, REFUSED)
    assert shut.refusal(11.0 + FIRST_STEP_S) is None


def test_steps_are_jittered() -> None:
    waits = set()
    for _ in range(50):
        shut, now = Breaker(), 0.0
        shut.failed(now, now, REFUSED)
        while shut.refusal(now) is not None:
            now += FIRST_STEP_S / 1000
        waits.add(round(now / FIRST_STEP_S, 2))
    assert len(waits) > 10
    assert min(waits) >= 0.49
    assert max(waits) <= 1.01
