from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankd_service.decision.rank import fuse, rank

SCORES = st.lists(st.floats(0, 1, width=32) | st.just(float("nan")), min_size=1, max_size=40)


def test_the_ranking_score_is_the_weighted_mean() -> None:
    fused = fuse(np.array([[0.2, 0.6], [1.0, 0.0]], np.float32), np.array([0.25, 0.75]))
    assert fused.tolist() == pytest.approx([0.5, 0.25])
    assert fused.dtype == np.float32


@given(st.integers(1, 300), st.integers(1, 5))
def test_a_score_does_not_depend_on_the_other_candidates(n: int, num_tasks: int) -> None:
    rng = np.random.default_rng(n)
    scores, weights = rng.random((n, num_tasks), np.float32), np.full(num_tasks, 1 / num_tasks)
    together = fuse(scores, weights)
    alone = [float(fuse(scores[i : i + 1], weights)[0]) for i in range(n)]
    assert together.tolist() == alone


def test_ties_keep_the_order_of_the_request() -> None:
    assert rank(np.array([0.5, 0.9, 0.5, 0.9], np.float32), None, True, 4).order.tolist() == [1, 3, 0, 2]


def test_scores_that_are_no_numbers_come_last_in_the_order_of_the_request() -> None:
    scores = np.array([np.nan, 0.1, np.nan, 0.2], np.float32)
    assert rank(scores, None, True, len(scores)).order.tolist() == [3, 1, 0, 2]


def test_without_sorting_the_best_come_in_the_order_of_the_request_with_their_ranks() -> None:
    ranking = rank(np.array([0.1, 0.9, 0.2, 0.8], np.float32), 3, False, 4)
    assert ranking.order.tolist() == [1, 2, 3]
    assert ranking.ranks.tolist() == [1, 3, 2]


@given(SCORES, st.integers(1, 50))
def test_top_k_is_the_head_of_the_whole_ranking(values: list[float], top_k: int) -> None:
    scores = np.array(values, np.float32)
    whole, head = rank(scores, None, True, len(scores)), rank(scores, top_k, True, len(scores))
    assert head.order.tolist() == whole.order.tolist()[:top_k]
    assert head.ranks.tolist() == list(range(1, min(top_k, len(values)) + 1))


@given(SCORES)
def test_every_candidate_is_ranked_once(values: list[float]) -> None:
    ranking = rank(np.array(values, np.float32), None, True, len(values))
    assert sorted(ranking.order.tolist()) == list(range(len(values)))
    finite = [values[at] for at in ranking.order.tolist() if not np.isnan(values[at])]
    assert finite == sorted(finite, reverse=True)


@pytest.mark.parametrize(("top_k", "expected"), [(None, [1, 0, 2, 3, 4]), (4, [1, 0, 2, 3]), (1, [1])])
def test_candidates_that_were_not_scored_follow_in_their_own_order(
    top_k: int | None, expected: list[int]
) -> None:
    scores = np.array([0.1, 0.2, 0.9, 0.5, 0.9], np.float32)
    assert rank(scores, top_k, True, 2).order.tolist() == expected


def test_with_nothing_scored_the_order_of_the_request_stays() -> None:
    assert rank(np.full(3, 0.5, np.float32), None, True, 0).order.tolist() == [0, 1, 2]


@pytest.mark.fault("C22")
def test_a_score_that_is_no_number_comes_last_whichever_way_it_is_none() -> None:
    scores = np.array([np.inf, 0.2, np.nan, 0.9, -np.inf], np.float32)
    assert rank(scores, None, True, 5).order.tolist() == [3, 1, 0, 2, 4]
