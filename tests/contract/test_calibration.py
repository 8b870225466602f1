from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankd_contract.calibration import Calibration, Curve, PiecewiseLinear, Platt, curve_from, curve_to
from rankd_contract.errors import CorruptBundle

LINES = PiecewiseLinear((0.0, 0.25, 0.5, 1.0), (0.0, 0.1, 0.4, 1.0))
CURVES: list[Curve] = [Platt(1.7, -0.4), Platt(0.2, 3.0), LINES]


def test_platt_is_a_line_in_the_logit() -> None:
    score_N = np.linspace(0.01, 0.99, 99)
    expected_N = 1 / (1 + np.exp(-(1.7 * np.log(score_N / (1 - score_N)) - 0.4)))
    np.testing.assert_allclose(Platt(1.7, -0.4)(score_N), expected_N, rtol=1e-12)


def test_lines_go_through_their_points_and_are_straight_between() -> None:
    score_N = np.array([0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(LINES(score_N), [0.0, 0.05, 0.1, 0.25, 0.4, 0.7, 1.0])


@pytest.mark.parametrize("curve", CURVES)
def test_the_order_of_scores_is_kept_and_they_stay_probabilities(curve: Curve) -> None:
    score_N = np.r_[0.0, 1e-30, np.sort(np.random.default_rng(0).random(1000)), 1.0].astype(np.float32)
    found_N = curve(score_N)
    assert (np.diff(found_N) >= 0).all()
    assert ((found_N >= 0) & (found_N <= 1)).all()


@pytest.mark.parametrize("curve", CURVES)
def test_a_score_that_is_no_number_stays_none(curve: Curve) -> None:
    assert np.isnan(curve(np.array([0.5, np.nan], np.float32))).tolist() == [False, True]


@pytest.mark.parametrize("curve", CURVES)
@given(n=st.integers(1, 300), at=st.integers(0, 10_000))
def test_a_score_comes_out_the_same_whatever_else_is_in_the_batch(curve: Curve, n: int, at: int) -> None:
    scores_NT = np.random.default_rng(n).random((n, 2), np.float32)
    both = Calibration((curve, curve))
    row = at % n
    assert np.array_equal(both(scores_NT)[row], both(scores_NT[row : row + 1])[0])


def test_tasks_without_a_curve_keep_their_scores() -> None:
    scores_NT = np.random.default_rng(0).random((5, 3), np.float32)
    found_NT = Calibration.of({"buy": curve_to(LINES)}, ("click", "buy", "pay"))(scores_NT)
    assert found_NT.dtype == np.float32
    assert np.array_equal(found_NT[:, [0, 2]], scores_NT[:, [0, 2]])
    np.testing.assert_allclose(found_NT[:, 1], LINES(scores_NT[:, 1]), rtol=1e-6)


def test_nothing_is_copied_where_nothing_is_calibrated() -> None:
    scores_NT = np.zeros((2, 2), np.float32)
    assert Calibration.of({}, ("click", "buy"))(scores_NT) is scores_NT


@pytest.mark.parametrize("curve", CURVES)
def test_a_curve_comes_back_from_json_as_it_was(curve: Curve) -> None:
    assert curve_from(json.loads(json.dumps(curve_to(curve)))) == curve


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"kind": "spline"},
        {"kind": "platt", "scale": 1.0},
        {"kind": "platt", "scale": 0.0, "shift": 0.0},
        {"kind": "platt", "scale": -1.0, "shift": 0.0},
        {"kind": "platt", "scale": float("inf"), "shift": 0.0},
        {"kind": "platt", "scale": "1", "shift": 0.0},
        {"kind": "platt", "scale": 1.0, "shift": float("nan")},
        {"kind": "piecewise_linear", "scores": [0.5], "probabilities": [0.5]},
        {"kind": "piecewise_linear", "scores": [0.0, 1.0], "probabilities": [0.0]},
        {"kind": "piecewise_linear", "scores": [0.0, 0.0], "probabilities": [0.0, 1.0]},
        {"kind": "piecewise_linear", "scores": [0.0, 1.0], "probabilities": [1.0, 0.0]},
        {"kind": "piecewise_linear", "scores": [0.0, 1.0], "probabilities": [0.0, 1.5]},
        {"kind": "piecewise_linear", "scores": [0.0, float("nan")], "probabilities": [0.0, 1.0]},
        {"kind": "piecewise_linear", "scores": ["0", "x"], "probabilities": [0.0, 1.0]},
        {"kind": "piecewise_linear", "scores": None, "probabilities": None},
        {"kind": ["platt"], "scale": 1.0, "shift": 0.0},
    ],
)
def test_what_is_no_rising_curve_is_refused(tree: dict[str, Any]) -> None:
    with pytest.raises(CorruptBundle, match="calibration"):
        curve_from(tree)


def test_a_curve_for_no_task_is_refused() -> None:
    with pytest.raises(CorruptBundle, match="calibration is for pay; the tasks are click, buy"):
        Calibration.of({"pay": curve_to(LINES)}, ("click", "buy"))
