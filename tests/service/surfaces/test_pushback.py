from __future__ import annotations

import heapq

import pytest

from rankd_service.surfaces.pushback import Pushback


@pytest.mark.fault("E1")
def test_at_four_times_the_load_nobody_has_to_pause() -> None:
    pushback, pauses = Pushback(), []
    for at in range(10_000):
        pushback.let_in(at / 1000)
        pauses += [pushback.after_refusal() for _ in range(3)]
    assert set(pauses) == {0.0}


@pytest.mark.fault("E4")
@pytest.mark.parametrize("callers", [10, 300, 1000])
def test_however_many_repeat_refusals_at_once_they_get_few_for_each_request_let_in(callers: int) -> None:
    pushback, refusals, seconds, rate = Pushback(), 0, 20, 500
    due = [(0.0, at) for at in range(callers)]
    for at in range(seconds * rate):
        pushback.let_in(at / rate)
        while due and due[0][0] <= at / rate and refusals < 100 * seconds * rate:
            _, caller = heapq.heappop(due)
            refusals += 1
            # Over loopback a repetition is there a tenth of a millisecond later.
            heapq.heappush(due, (at / rate + 0.0001 + pushback.after_refusal(), caller))
    assert refusals <= 3 * seconds * rate + 500 + 5 * callers


def test_a_pause_is_never_long() -> None:
    pushback = Pushback(most=0.0)
    assert max(pushback.after_refusal() for _ in range(100_000)) == 1.6
