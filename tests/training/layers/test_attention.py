from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rankd_training.layers.attention import Aggregation, CrossAttention
from rankd_training.layers.tokens import Rows, Tokens

ROW_N = torch.tensor([0, 1, 1, 0, 1])


def tokens(count: int, rows: Rows, present: Tensor | None = None) -> Tokens:
    """Random tokens of width 8; rows are one, two users or five candidates."""
    x = torch.randn({Rows.SHARED: 1, Rows.USER: 2, Rows.CANDIDATE: 5}[rows], count, 8)
    return Tokens(x if present is None else x * present.unsqueeze(2), rows, present)


def on_candidates(of: Tokens) -> Tensor:
    if of.rows is Rows.SHARED:
        return of.x.expand(5, -1, -1)
    return of.x[ROW_N] if of.rows is Rows.USER else of.x


@pytest.mark.parametrize("source_rows", Rows)
@pytest.mark.parametrize("query_rows", Rows)
def test_attention_is_the_same_on_whatever_rows_its_sides_stand(query_rows: Rows, source_rows: Rows) -> None:
    torch.manual_seed(0)
    attention, query, source = CrossAttention(8, 1), tokens(3, query_rows), tokens(4, source_rows)
    found = attention(query, (source,), ROW_N)
    assert found.rows == max(query_rows, source_rows)
    q, y = attention.query(on_candidates(query)), on_candidates(source)
    score = q @ attention.key(y).transpose(1, 2) / math.sqrt(8)
    expected = functional.softmax(score, dim=2) @ attention.value(y)
    torch.testing.assert_close(on_candidates(found), expected)


def test_heads_are_attentions_over_parts_of_the_width() -> None:
    torch.manual_seed(0)
    attention, query, source = CrossAttention(8, 2), tokens(3, Rows.CANDIDATE), tokens(4, Rows.USER)
    found = attention(query, (source,), ROW_N)
    q, k, v = attention.query(query.x), attention.key(source.x)[ROW_N], attention.value(source.x)[ROW_N]
    for part in (slice(0, 4), slice(4, 8)):
        expected = functional.scaled_dot_product_attention(q[..., part], k[..., part], v[..., part])
        torch.testing.assert_close(found.x[..., part], expected)


@pytest.mark.parametrize("heads", [1, 4])
def test_padding_has_no_weight_and_padding_alone_adds_exactly_nothing(heads: int) -> None:
    torch.manual_seed(0)
    present = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    attention, query, source = CrossAttention(8, heads), tokens(3, Rows.USER), tokens(4, Rows.USER, present)
    found = attention(query, (source,), ROW_N).x
    without = attention(query, (Tokens(source.x[:, :2], Rows.USER),), ROW_N).x
    torch.testing.assert_close(found[0], without[0])
    assert found[1].abs().max() == 0


def test_a_group_in_two_parts_is_read_as_one() -> None:
    torch.manual_seed(0)
    attention, query = CrossAttention(8, 1), tokens(3, Rows.CANDIDATE)
    user, item = tokens(2, Rows.USER), tokens(2, Rows.CANDIDATE)
    whole = Tokens(torch.cat([user.x[ROW_N], item.x], dim=1), Rows.CANDIDATE)
    torch.testing.assert_close(attention(query, (user, item), ROW_N).x, attention(query, (whole,), ROW_N).x)


def test_fusing_is_one_linear_layer_over_what_all_sources_say() -> None:
    torch.manual_seed(0)
    aggregation = Aggregation(8, 2, num_heads=1, fused=True)
    query, user, item = tokens(3, Rows.SHARED), tokens(2, Rows.USER), tokens(4, Rows.CANDIDATE)
    assert aggregation.fusion_IO is not None
    assert aggregation.fusion_O is not None
    assert aggregation.norm is not None
    torch.nn.init.normal_(aggregation.fusion_O)
    said = [
        on_candidates(attention(query, (source,), ROW_N))
        for attention, source in zip(aggregation.attentions, (user, item), strict=True)
    ]
    fused = torch.cat(said, dim=2) @ aggregation.fusion_IO + aggregation.fusion_O
    found = aggregation(query, [(user,), (item,)], ROW_N)
    torch.testing.assert_close(found.x, aggregation.norm(query.x + fused))
