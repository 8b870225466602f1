"""Processes that share a table hold, together, exactly the table that one process alone would have."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rankd_training.layers import row_share
from rankd_training.layers.row_share import RowShare, drawn, sharing
from rankd_training.models.registry import build, names
from tests.training.fields import mixed_schema

TABLE = "embedding.table.weight"


@given(rows=st.integers(0, 1000), count=st.integers(1, 20))
def test_every_row_is_held_once_and_in_order(rows: int, count: int) -> None:
    shares = [RowShare(index, count).of(rows) for index in range(count)]
    assert [row for share in shares for row in range(share.start, share.stop)] == list(range(rows))
    assert max(share.stop - share.start for share in shares) == -(-rows // count)


@pytest.mark.parametrize("fill", [nn.init.normal_, nn.init.uniform_])
@pytest.mark.parametrize("width", [1, 3, 16, 100])
@pytest.mark.parametrize("rows", [1, 5, 16, 47, 500, 1027])
def test_drawn_in_pieces_a_table_is_what_it_is_drawn_at_once(
    monkeypatch: pytest.MonkeyPatch, fill: type, width: int, rows: int
) -> None:
    monkeypatch.setattr(row_share, "PIECE", 256)
    torch.manual_seed(3)
    whole = torch.empty(rows, width)
    fill(whole)
    after = torch.rand(1)
    torch.manual_seed(3)
    pieces = [piece.clone() for _, piece in drawn(rows, width, fill)]
    assert torch.equal(torch.cat(pieces), whole)
    assert torch.equal(torch.rand(1), after), "what is drawn next is the same too"
    assert len(pieces) > 1 or rows * width <= 256 + 16 * width


@pytest.mark.parametrize("name", names())
def test_models_in_parts_begin_with_the_weights_of_one_in_one_piece(name: str) -> None:
    torch.manual_seed(7)
    whole = build(name, mixed_schema(), {}).state_dict()
    parts = []
    for index in range(3):
        torch.manual_seed(7)
        with sharing(RowShare(index, 3)):
            parts.append(build(name, mixed_schema(), {}).state_dict())
    assert torch.equal(torch.cat([part.pop(TABLE) for part in parts]), whole.pop(TABLE))
    for part in parts:
        assert part.keys() == whole.keys()
        assert all(torch.equal(part[key], whole[key]) for key in whole)
