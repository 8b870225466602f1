from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankd_contract.pair_hash import HashedPair, pair_row
from rankd_training.layers.pair_hash import PairHash

BIGGEST = 2**31 - 1
PAIRS = st.builds(
    HashedPair,
    name=st.sampled_from(["user_id*item_id", "city*hour", "a*b"]),
    left_ids=st.integers(1, BIGGEST),
    right_ids=st.integers(1, BIGGEST),
    most_rows=st.integers(1, 10**8),
)


@given(pairs=st.lists(PAIRS, min_size=1, max_size=4), seed=st.integers(0, 2**32))
def test_the_graphs_arithmetic_is_that_of_whole_numbers(pairs: list[HashedPair], seed: int) -> None:
    rng = np.random.default_rng(seed)
    left = np.stack([rng.integers(p.left_ids, size=20) for p in pairs], 1)
    right = np.stack([rng.integers(p.right_ids, size=20) for p in pairs], 1)
    found = PairHash(pairs)(torch.from_numpy(left), torch.from_numpy(right)).numpy()
    start = 0
    for at, pair in enumerate(pairs):
        mine = found[:, at] - start
        assert ((mine >= 0) & (mine < pair.num_rows)).all()
        np.testing.assert_array_equal(mine, pair_row(pair, left[:, at], right[:, at]))
        for row, a, b in zip(mine.tolist(), left[:, at].tolist(), right[:, at].tolist(), strict=True):
            x = a * pair.right_ids + b  # Python's numbers do not overflow
            prime = 2**31 - 1
            hashed = (pair.factor * (x % prime) + pair.shift) % prime % pair.num_rows
            assert row == (hashed if pair.hashed else x)
        start += pair.num_rows


def test_what_fits_is_not_hashed_and_every_combination_has_its_own_row() -> None:
    pair = HashedPair("a*b", 30, 40, 1200)
    left, right = np.meshgrid(np.arange(30), np.arange(40))
    rows = pair_row(pair, left.ravel(), right.ravel())
    assert sorted(rows.tolist()) == list(range(1200))


@pytest.mark.parametrize("name", ["user_id*item_id", "item_id*user_id", "x*y"])
def test_hashed_combinations_spread_evenly(name: str) -> None:
    pair = HashedPair(name, 1000, 1000, 5000)
    left, right = np.meshgrid(np.arange(1000), np.arange(1000))
    counts = np.bincount(pair_row(pair, left.ravel(), right.ravel()), minlength=5000)
    assert counts.min() > 100
    assert counts.max() < 320
    # and one user's items do not fall on each other
    assert len(np.unique(pair_row(pair, np.full(1000, 7), np.arange(1000)))) > 850
