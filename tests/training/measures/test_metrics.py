from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from rankd_training.measures.metrics import Ranking, calibration_error, evaluate, user_auc, user_aucs

rows = st.lists(
    st.tuples(st.integers(0, 4), st.booleans(), st.sampled_from([0.1, 0.2, 0.5, 0.9])),
    min_size=1,
    max_size=60,
)


def arrays(sample: list[tuple[int, bool, float]]) -> tuple[Any, Any, Any]:
    user, label, score = zip(*sample, strict=True)
    return np.array(label, np.float32), np.array(score, np.float32), np.array(user, np.int64)


@given(sample=rows)
def test_user_auc_is_the_row_weighted_mean_of_each_users_auc(sample: list[tuple[int, bool, float]]) -> None:
    label_N, score_N, user_N = arrays(sample)
    total, weight = 0.0, 0
    for user in np.unique(user_N):
        mine = user_N == user
        if 0 < label_N[mine].mean() < 1:
            total += roc_auc_score(label_N[mine], score_N[mine]) * mine.sum()
            weight += mine.sum()
    expected = total / weight if weight else None
    assert user_auc(label_N, score_N, user_N) == (None if expected is None else pytest.approx(expected))


@given(sample=rows, seed=st.integers(0, 9))
def test_a_weighted_auc_is_scikit_learns(sample: list[tuple[int, bool, float]], seed: int) -> None:
    label_N, score_N, _ = arrays(sample)
    weight_N = np.random.default_rng(seed).integers(0, 3, len(label_N)).astype(np.float64)
    kept = weight_N > 0
    found = Ranking(label_N, score_N).auc(weight_N)
    if not kept.any() or not 0 < label_N[kept].mean() < 1:
        assert found is None
    else:
        expected = roc_auc_score(label_N[kept], score_N[kept], sample_weight=weight_N[kept])
        assert found == pytest.approx(expected)


def test_each_users_auc_is_scikit_learns_for_users_with_both_classes() -> None:
    generator = np.random.default_rng(3)
    user_N = generator.integers(30, size=300)
    label_N = (generator.random(300) < user_N / 40).astype(np.float32)
    score_N = generator.random(300).round(1)
    found = user_aucs(label_N, score_N, user_N)
    both = [user for user in range(30) if 0 < label_N[user_N == user].mean() < 1]
    assert found.user_U.tolist() == both
    for user, auc, count in zip(found.user_U, found.auc_U, found.rows_U, strict=True):
        mine = user_N == user
        assert auc == pytest.approx(roc_auc_score(label_N[mine], score_N[mine]))
        assert count == mine.sum()


def test_a_row_of_weight_two_counts_in_calibration_as_two_rows_of_its_bin() -> None:
    label_N, score_N = np.array([1.0, 0.0]), np.array([0.5, 0.6])
    # One bin: (2 · 0.5 - 0.6) / 3.
    found = calibration_error(label_N, score_N, 1, np.array([2.0, 1.0]))
    assert found == pytest.approx(0.4 / 3)


def test_a_score_that_only_knows_the_user_ranks_nothing_within_users() -> None:
    user_N = np.repeat(np.arange(10), 20)
    label_N = (np.arange(200) % 20 < user_N + 1).astype(np.float32)
    found = evaluate(label_N, (user_N / 20).astype(np.float32), user_N)
    assert found.auc is not None
    assert found.auc > 0.6
    assert found.user_auc == pytest.approx(0.5)


def test_calibration_error_is_the_distance_between_promise_and_rate() -> None:
    label_N = np.resize([1.0, 0.0, 0.0, 0.0], 4000).astype(np.float32)
    assert calibration_error(label_N, np.full(4000, 0.25, np.float32)) == pytest.approx(0.0, abs=1e-6)
    assert calibration_error(label_N, np.full(4000, 0.75, np.float32)) == pytest.approx(0.5, abs=1e-6)


def test_calibration_bins_hold_equal_numbers_of_rows() -> None:
    # Two bins of two rows each; bins of equal width would put three rows into one.
    score_N, label_N = np.repeat([0.1, 0.2, 0.3, 0.9], 50), np.repeat([0.0, 1.0, 0.0, 1.0], 50)
    expected = (abs(1.0 - 0.3) + abs(1.0 - 1.2)) / 4
    assert calibration_error(label_N, score_N, num_bins=2) == pytest.approx(expected)


def test_few_rows_are_few_bins_or_chance_would_pass_for_error() -> None:
    rng = np.random.default_rng(0)
    score_N = rng.random(90)
    label_N = (rng.random(90) < score_N).astype(float)  # as calibrated as can be
    assert calibration_error(label_N, score_N) == pytest.approx(abs(label_N.mean() - score_N.mean()))
    assert calibration_error(label_N, score_N) < 0.1


def test_one_class_has_no_auc_and_still_every_other_number() -> None:
    found = evaluate(np.ones(5, np.float32), np.full(5, 0.8, np.float32), np.arange(5))
    assert found.auc is None
    assert found.user_auc is None
    assert found.base_rate == 1
    assert found.log_loss == pytest.approx(-np.log(0.8))
    assert found.calibration_error == pytest.approx(0.2)
