"""Requests of any size are runs of a few sizes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rankd_contract.cuda_graph import CudaGraph

GRAPH = CudaGraph("fp32", (4, 16, 64), 1e-5, "1.31.1")


@given(st.integers(1, 1000))
def test_pieces_cover_every_candidate_once_in_order_and_fit_their_bucket(candidates: int) -> None:
    pieces = list(GRAPH.pieces(candidates))
    assert [k for start, stop, _ in pieces for k in range(start, stop)] == list(range(candidates))
    assert all(bucket in GRAPH.buckets and stop - start <= bucket for start, stop, bucket in pieces)


def test_a_piece_is_filled_up_to_the_smallest_bucket_that_holds_it() -> None:
    assert list(GRAPH.pieces(1)) == [(0, 1, 4)]
    assert list(GRAPH.pieces(16)) == [(0, 16, 16)]
    assert list(GRAPH.pieces(17)) == [(0, 17, 64)]
    assert list(GRAPH.pieces(130)) == [(0, 64, 64), (64, 128, 64), (128, 130, 4)]
    assert list(GRAPH.pieces(0)) == []
