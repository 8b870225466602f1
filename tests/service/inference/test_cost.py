from __future__ import annotations

import random

import pytest

from rankd_service.inference.cost import CostModel


def test_it_learns_a_fixed_part_and_a_part_a_row() -> None:
    cost = CostModel([(1000, 0.0021), (1, 0.0001021), (100, 0.0003)])
    assert cost.expected_s(500) == pytest.approx(0.0011, rel=0.01)
    assert cost.rows_within(0.0011 * 1.25) == pytest.approx(500, abs=2)


def test_where_nothing_is_known_everything_fits() -> None:
    assert CostModel().rows_within(1e-6) > 1_000_000
    assert CostModel().rows_within(0.0) == 0


def test_no_time_is_no_rows() -> None:
    cost = CostModel([(1, 0.001), (1000, 0.002)])
    assert [cost.rows_within(s) for s in (-1.0, 0.0, 0.0009)] == [0, 0, 0]


def test_it_follows_a_machine_that_becomes_slower_and_faster() -> None:
    cost, rng = CostModel([(1, 0.0001), (1000, 0.0021)]), random.Random(1)
    for factor in (5.0, 0.5):
        for _ in range(400):
            rows = rng.randrange(1, 1000)
            cost.took(rows, factor * (0.0001 + rows * 0.000002) * rng.uniform(0.9, 1.1))
        assert cost.expected_s(800) == pytest.approx(factor * 0.0017, rel=0.15)


def test_a_run_that_took_no_time_at_all_is_no_error() -> None:
    cost = CostModel([(1, 0.0), (1, 0.0)])
    for rows in (1, 500):
        cost.took(rows, 0.0)
    assert cost.expected_s(100) == 0
    assert cost.rows_within(1.0) > 1000


def test_a_stall_of_the_machine_is_not_what_the_model_costs_from_then_on() -> None:
    cost = CostModel([(1, 0.0001), (500, 0.021)])
    for _ in range(3):
        cost.took(500, 10.0)
    assert cost.rows_within(0.040) >= 500


def test_an_estimate_that_lets_nothing_run_comes_down_by_itself() -> None:
    cost = CostModel([(1, 1.0), (500, 30.0)])  # measured while the machine stood still
    for _ in range(2000):
        rows = min(500, cost.rows_within(0.040))
        cost.took(rows, 0.0001 + rows * 0.00004 if rows else 0.0)
    assert cost.rows_within(0.040) >= 500


def test_requests_without_time_do_not_teach_that_inference_is_free() -> None:
    cost, late = CostModel([(1, 0.030), (100, 0.031)]), 0
    for _ in range(300):
        rows = min(100, cost.rows_within(0.014))
        late += rows > 0
        cost.took(rows, 0.030 if rows else 0.0)
    assert late <= 5
