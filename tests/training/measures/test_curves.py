from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

from rankd_training.measures.curves import calibration, densities, roc

RNG = np.random.default_rng(0)
LABEL = (RNG.random(20_000) < 0.3).astype(np.float32)
SCORE = np.clip(RNG.normal(0.3 + 0.1 * LABEL, 0.1), 0, 1).astype(np.float32)


def test_a_thinned_roc_curve_keeps_its_area_and_its_ends() -> None:
    curve = roc(LABEL, SCORE)
    assert curve is not None
    false_P, true_P = curve
    assert len(false_P) <= 240
    assert (false_P[0], true_P[0], false_P[-1], true_P[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true_P, false_P) == pytest.approx(roc_auc_score(LABEL, SCORE), abs=2e-4)


def test_one_class_has_no_roc_curve() -> None:
    assert roc(np.ones(4), np.arange(4.0)) is None


def test_calibration_bins_are_scikit_learns_quantile_bins() -> None:
    found = calibration(LABEL, SCORE, 10)
    rate_G, score_G = calibration_curve(LABEL, SCORE, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(found.score_G, score_G, atol=2e-3)
    np.testing.assert_allclose(found.rate_G, rate_G, atol=2e-3)


def test_a_rates_interval_is_wilsons() -> None:
    label_N = np.array([1.0] * 3 + [0.0] * 7)
    found = calibration(label_N, np.full(10, 0.5), 1)
    # 3 of 10: the textbook's 0.108 to 0.603.
    assert found.low_G[0] == pytest.approx(0.1078, abs=1e-4)
    assert found.high_G[0] == pytest.approx(0.6032, abs=1e-4)


def test_densities_have_area_one_each_even_where_all_scores_are_equal() -> None:
    for score_N in (SCORE, np.full_like(SCORE, 0.5)):
        edges, negative, positive = densities(LABEL, score_N)
        for density in (negative, positive):
            assert (density * np.diff(edges)).sum() == pytest.approx(1)
