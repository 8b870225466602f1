from __future__ import annotations

import pytest
import torch

from rankd_training.layers.hubs import CategoricalHubs, SequenceHubs, Sides
from rankd_training.layers.tokens import Rows, Tokens

ROW_N = torch.tensor([0, 1, 1, 0, 1])


@pytest.mark.parametrize("hidden", [(), (6,), (6, 5)])
def test_hubs_of_fields_are_those_of_both_sides_flattened_together(hidden: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    hubs = CategoricalHubs(4, Sides(3, 2), 2, hidden=hidden)
    user, item = torch.randn(2, 3, 4), torch.randn(5, 2, 4)
    split = hubs((Tokens(user, Rows.USER), Tokens(item, Rows.CANDIDATE)), ROW_N)
    tiled = hubs((Tokens(user[ROW_N], Rows.USER), Tokens(item, Rows.CANDIDATE)), torch.arange(5))
    assert split.rows is Rows.CANDIDATE
    assert split.x.shape == (5, 2, 4)
    torch.testing.assert_close(split.x, tiled.x)


@pytest.mark.parametrize("prototypes", [True, False])
def test_a_sequence_of_padding_has_a_hub_of_zeros(prototypes: bool) -> None:
    torch.manual_seed(0)
    hubs = SequenceHubs(4, [(3, 2)], prototypes=prototypes, num_extra=1, std=1.0)
    present = torch.tensor([[0.0, 0.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0, 0.0]])
    with torch.no_grad():
        for parameter in hubs.parameters():
            parameter.normal_()
        found = hubs((Tokens(torch.randn(2, 5, 4) * present.unsqueeze(2), Rows.USER, present),), ROW_N).x
    assert found.shape == (2, 3, 4)
    empty = torch.tensor([[True, False, False], [False, True, False]])
    assert found[empty].abs().max() == 0
    assert (found[~empty].abs().amax(1) > 0).all()
    assert torch.equal(found[0, 2], found[1, 2])  # the extra one is everybody's
