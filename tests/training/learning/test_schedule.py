from __future__ import annotations

from itertools import pairwise

import pytest

from rankd_training.learning.schedule import SCHEDULES, rate_share


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_begins_at_its_full_rate_and_never_stands_still(schedule: str) -> None:
    shares = [rate_share(schedule, done, 100) for done in range(100)]
    assert shares[0] == 1
    assert all(later <= before for before, later in pairwise(shares))
    assert shares[-1] > 0


@pytest.mark.parametrize(
    ("schedule", "expected"), [("constant", 1.0), ("linear", 0.25), ("cosine", 0.146447)]
)
def test_three_quarters_through_the_shares_are_those_of_the_formulas(schedule: str, expected: float) -> None:
    assert rate_share(schedule, 75, 100) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_nothing_is_left_after_the_last_step(schedule: str) -> None:
    assert rate_share(schedule, 100, 100) == pytest.approx(0)
