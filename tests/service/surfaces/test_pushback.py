from __future__ import annotations

import pytest

from rankd_service.surfaces.pushback import Pushback


@pytest.mark.fault("E1")
def test_as_many_refusals_as_there_is_room_for_make_nobody_pause() -> None:
    pushback = Pushback(free_a_s=1000.0)
    assert {pushback.after_refusal(at / 900, in_a_row=0) for at in range(10_000)} == {0.0}


@pytest.mark.fault("E4")
def test_beyond_that_a_connection_pauses_twice_as_long_each_time_but_never_for_long() -> None:
    pushback = Pushback(free_a_s=100.0, pause_s=0.05)
    assert [pushback.after_refusal(1.0, 0) for _ in range(25)] == [0.0] * 25
    assert [pushback.after_refusal(1.0, times) for times in range(7)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 1.6]
    assert pushback.after_refusal(1.011, 7) == 0.0, "room for one more"
    assert pushback.after_refusal(1.011, 7) > 0


def test_a_connection_that_is_refused_for_ever_costs_no_overflow() -> None:
    assert Pushback(free_a_s=0.0).after_refusal(0.0, 5000) == 1.6
