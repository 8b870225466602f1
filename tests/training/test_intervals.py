from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from rankd_training.intervals import Interval, auc_difference, user_auc_difference
from rankd_training.metrics import user_auc

RNG = np.random.default_rng(0)
USER = RNG.integers(40, size=2000)
TASTE = RNG.normal(size=2000)
LABEL = (TASTE + RNG.normal(size=2000) > 0).astype(np.float32)
GOOD, POOR, NOISE = TASTE, TASTE + 2 * RNG.normal(size=2000), RNG.normal(size=2000)


@pytest.mark.parametrize("measure", [auc_difference, user_auc_difference])
def test_a_clear_difference_excludes_zero_and_equal_scores_give_exactly_zero(
    measure: Callable[..., Interval],
) -> None:
    clear = measure(LABEL, [GOOD], [POOR], USER, resamples=50)
    assert 0 < clear.low < clear.difference < clear.high
    equal = measure(LABEL, [GOOD], [GOOD * 3], USER, resamples=10)
    assert (equal.difference, equal.low, equal.high) == (0, 0, 0)


def test_differences_are_those_of_the_means_over_runs() -> None:
    whole = auc_difference(LABEL, [GOOD, POOR], [NOISE], USER, resamples=10)
    means = np.mean([roc_auc_score(LABEL, GOOD), roc_auc_score(LABEL, POOR)])
    assert whole.difference == pytest.approx(means - roc_auc_score(LABEL, NOISE))
    within = user_auc_difference(LABEL, [GOOD], [NOISE], USER, resamples=10)
    expected = (user_auc(LABEL, GOOD, USER) or 0) - (user_auc(LABEL, NOISE, USER) or 0)
    assert within.difference == pytest.approx(expected)


def test_rows_of_one_user_count_as_one_draw() -> None:
    # Ten times the same rows say nothing new, so the interval must not shrink.
    once = auc_difference(LABEL, [GOOD], [POOR], USER, resamples=100)
    again = auc_difference(
        np.tile(LABEL, 10), [np.tile(GOOD, 10)], [np.tile(POOR, 10)], np.tile(USER, 10), resamples=100
    )
    assert again.high - again.low == pytest.approx(once.high - once.low, rel=0.01)
