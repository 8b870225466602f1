from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankd_training.data.splits import SplitPlan, temporal_split
from rankd_training.errors import SettingError


@given(st.lists(st.integers(0, 30), max_size=80))
def test_nobody_trains_on_the_future(times: list[int]) -> None:
    time = np.array(times, dtype=np.int64)
    split = np.array(temporal_split(time, valid_share=0.2, test_share=0.3).to_pylist(), dtype=str)
    latest = -1
    for name in ("train", "valid", "test"):
        part = time[split == name]
        if len(part):
            assert part.min() >= latest
            latest = int(part.max())


@given(st.integers(0, 500))
def test_shares_hold_to_the_row(num_rows: int) -> None:
    split = temporal_split(np.zeros(num_rows, dtype=np.int64)).to_pylist()
    assert split.count("valid") == split.count("test") == int(num_rows * 0.1)


@given(st.randoms(use_true_random=False))
def test_with_tie_breakers_the_order_of_rows_does_not_matter(random: np.random.Generator) -> None:
    rows = [(row // 7, row % 7) for row in range(50)]
    shuffled = list(rows)
    random.shuffle(shuffled)
    by_row = []
    for order in (rows, shuffled):
        time, tie = np.array(order, dtype=np.int64).T
        by_row.append(dict(zip(order, temporal_split(time, tie_breakers=(tie,)).to_pylist(), strict=True)))
    assert by_row[0] == by_row[1]


@pytest.mark.parametrize("shares", [(-0.1, 0.1), (0.5, 0.5), (0.9, 0.3)])
def test_shares_that_leave_nothing_to_train_on_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="sum to less than 1"):
        temporal_split(np.arange(10), valid_share=shares[0], test_share=shares[1])


@pytest.mark.parametrize("text", ["80/20", "80/10/x", "0/0/0", "80/0/20", "-1/1/1", "nan/1/1", ""])
def test_shares_that_are_not_three_above_zero_are_refused(text: str) -> None:
    with pytest.raises(SettingError, match="such as 80/10/10"):
        SplitPlan.parse(text)


def test_a_row_keeps_its_split_when_rows_are_added_after_it() -> None:
    plan = SplitPlan.parse("8/1/1")
    few, many = plan.codes(1000, None), plan.codes(5000, None)
    assert np.array_equal(few, many[:1000])
