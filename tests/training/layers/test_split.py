from __future__ import annotations

import torch

from rankd_training.layers.split import SplitLinear, join_sides


def test_the_split_layer_equals_one_layer_over_both_sides() -> None:
    torch.manual_seed(0)
    layer = SplitLinear(3, 5, 4)
    user_RI, item_NI, row_N = torch.randn(2, 3), torch.randn(6, 5), torch.tensor([0, 1, 1, 0, 1, 0])
    assert layer.bias_O is not None
    torch.nn.init.normal_(layer.bias_O)
    whole = torch.cat([user_RI[row_N], item_NI], dim=1) @ layer.weight_IO + layer.bias_O
    torch.testing.assert_close(layer(user_RI, item_NI, row_N), whole)


def test_joining_puts_the_users_slots_first() -> None:
    user_RSE, item_NSE = torch.randn(2, 3, 4), torch.randn(5, 2, 4)
    row_N = torch.tensor([1, 0, 1, 1, 0])
    joined = join_sides(user_RSE, item_NSE, row_N)
    assert torch.equal(joined[:, :3], user_RSE[row_N])
    assert torch.equal(joined[:, 3:], item_NSE)
