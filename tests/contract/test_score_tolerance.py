from __future__ import annotations

import numpy as np
import pytest

from rankd_contract.score_tolerance import allowed, worst_excess


def test_a_difference_of_logits_is_allowed_or_not_wherever_the_score_lies() -> None:
    logit_n = np.linspace(-30, 12, 200)
    score_n = 1 / (1 + np.exp(-logit_n))
    for moved, sound in ((0.01, True), (0.05, False)):
        other_n = 1 / (1 + np.exp(-logit_n - moved))
        within_n = np.abs(other_n - score_n) <= allowed(score_n, 0.005)
        assert within_n.all() if sound else not within_n[logit_n < 8].any()


def test_what_is_worst_is_named_with_what_was_allowed_and_no_number_is_worst() -> None:
    expected = np.array([[0.5, 0.001], [0.9, 1e-9]])
    found = expected + np.array([[0.004, 0.002], [0.0, 0.0]])
    off, bound = worst_excess(found, expected, 0.005)
    assert off == pytest.approx(0.002)
    assert bound == pytest.approx(2e-5, rel=0.01)
    assert np.isnan(worst_excess(np.array([np.nan, 0.5]), np.array([0.5, 0.5]), 0.005)[0])
    assert worst_excess(np.zeros(0), np.zeros(0), 0.005) == (0.0, 0.0)
    off, bound = worst_excess(np.zeros(2), np.array([0.0, 1e-45]), 1e-5)
    assert off <= bound
