from __future__ import annotations

from rankd_service.workers.patience import Backoff, Vigil


def test_g5_a_beat_that_stands_still_for_the_limit_is_a_hang() -> None:
    vigil = Vigil(starting_s=60, hanging_s=5, longest_look_s=0.5)
    assert not vigil.hangs(1, 0.1)
    assert [vigil.hangs(1, 0.5) for _ in range(11)] == [False] * 10 + [True]


def test_a_process_that_still_imports_has_longer() -> None:
    vigil = Vigil(starting_s=60, hanging_s=5, longest_look_s=0.5)
    assert not any(vigil.hangs(0, 0.5) for _ in range(120))
    assert vigil.hangs(0, 0.5)


def test_after_the_whole_machine_stood_still_nobody_hangs() -> None:
    vigil = Vigil(starting_s=60, hanging_s=5, longest_look_s=0.5)
    assert not vigil.hangs(1, 0.1)
    assert not vigil.hangs(1, 3600.0)
    assert not vigil.hangs(2, 0.1)


def test_g3_a_crash_loop_is_left_alone_longer_and_longer_up_to_a_limit() -> None:
    backoff = Backoff(first_s=0.1, longest_s=30, calm_s=60)
    pauses = [backoff.pause_s(lived_s=1) for _ in range(12)]
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-1] == 30
    assert backoff.failures == 12


def test_a_long_life_forgives_what_was_before() -> None:
    backoff = Backoff(first_s=0.1, longest_s=30, calm_s=60)
    for _ in range(5):
        backoff.pause_s(lived_s=1)
    assert backoff.pause_s(lived_s=61) == 0.1
    assert backoff.failures == 1
