from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from rankd_training.measures.intervals import (
    Interval,
    auc_difference,
    auc_estimate,
    estimates,
    user_auc_difference,
)
from rankd_training.measures.metrics import evaluate, user_auc

RNG = np.random.default_rng(0)
USER = RNG.integers(40, size=2000)
TASTE = RNG.normal(size=2000)
LABEL = (TASTE + RNG.normal(size=2000) > 0).astype(np.float32)
GOOD, POOR, NOISE = TASTE, TASTE + 2 * RNG.normal(size=2000), RNG.normal(size=2000)


@pytest.mark.parametrize("measure", [auc_difference, user_auc_difference])
def test_a_clear_difference_excludes_zero_and_equal_scores_give_exactly_zero(
    measure: Callable[..., Interval | None],
) -> None:
    clear = measure(LABEL, [GOOD], [POOR], USER, resamples=50)
    assert clear is not None
    assert 0 < clear.low < clear.difference < clear.high
    equal = measure(LABEL, [GOOD], [GOOD * 3], USER, resamples=10)
    assert equal is not None
    assert (equal.difference, equal.low, equal.high) == (0, 0, 0)


def test_differences_are_those_of_the_means_over_runs() -> None:
    whole = auc_difference(LABEL, [GOOD, POOR], [NOISE], USER, resamples=10)
    means = np.mean([roc_auc_score(LABEL, GOOD), roc_auc_score(LABEL, POOR)])
    within = user_auc_difference(LABEL, [GOOD], [NOISE], USER, resamples=10)
    gap = means - roc_auc_score(LABEL, NOISE)
    expected = (user_auc(LABEL, GOOD, USER) or 0) - (user_auc(LABEL, NOISE, USER) or 0)
    assert whole is not None
    assert within is not None
    assert whole.difference == pytest.approx(gap)
    assert within.difference == pytest.approx(expected)


def test_rows_of_one_user_count_as_one_draw() -> None:
    # Ten times the same rows say nothing new, so the interval must not shrink.
    once = auc_difference(LABEL, [GOOD], [POOR], USER, resamples=100)
    again = auc_difference(
        np.tile(LABEL, 10), [np.tile(GOOD, 10)], [np.tile(POOR, 10)], np.tile(USER, 10), resamples=100
    )
    assert once is not None
    assert again is not None
    assert again.high - again.low == pytest.approx(once.high - once.low, rel=0.01)


def test_every_metric_comes_with_an_interval_around_it() -> None:
    score_N = 1 / (1 + np.exp(-GOOD))
    found, whole = estimates(LABEL, score_N, USER, resamples=100), evaluate(LABEL, score_N, USER)
    assert list(found) == ["auc", "user_auc", "log_loss", "calibration_error"]
    for measure, estimate in found.items():
        assert estimate is not None
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.value == pytest.approx(getattr(whole, measure))
        assert estimate.low <= estimate.value <= estimate.high


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    # AUC of two unit normals one apart: Phi(1 / sqrt 2).
    hits = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        label_N = (generator.random(300) < 0.5).astype(np.float32)
        found = auc_estimate(label_N, generator.normal(size=300) + label_N, np.arange(300), resamples=200)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.7602 <= found.high
    assert 52 <= hits <= 60


def test_few_users_get_a_value_and_no_interval() -> None:
    found = estimates(LABEL, np.full(2000, 0.5), USER % 9, resamples=10)
    assert all(estimate is not None and estimate.low is None for estimate in found.values())


def test_one_class_has_no_auc_to_estimate() -> None:
    found = estimates(np.ones(50, np.float32), np.full(50, 0.7), np.arange(50), resamples=10)
    assert found["auc"] is None
    assert found["user_auc"] is None
    assert found["log_loss"] is not None


def test_a_draw_of_one_class_says_nothing_and_widens_nothing() -> None:
    """One user in twelve has all the clicks: he is not drawn at all in a third of the draws."""
    user, label = np.repeat(np.arange(12), 5), np.zeros(60, np.float32)
    label[:3] = 1
    found = auc_difference(label, [label], [1 - label], user, resamples=60)
    assert found is not None
    assert (found.difference, found.low, found.high) == (1, 1, 1)
