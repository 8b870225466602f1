from __future__ import annotations

import pytest
import torch

from rankd_training.layers.broadcast import BroadcastGate, ProxyGate
from rankd_training.layers.tokens import Rows, Tokens

ROW_N = torch.tensor([0, 1, 1, 0, 1])


@pytest.mark.parametrize("gate_type", [ProxyGate, BroadcastGate])
def test_gates_move_tokens_and_leave_padding_at_zero(
    gate_type: type[ProxyGate] | type[BroadcastGate],
) -> None:
    torch.manual_seed(0)
    gate = gate_type(4, 2, num_hidden=1, bias=2.0)
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.normal_()
    present = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    tokens = Tokens(torch.randn(2, 3, 4) * present.unsqueeze(2), Rows.USER, present)
    hubs = Tokens(torch.randn(5, 2, 4), Rows.CANDIDATE)
    (found,) = gate((tokens,), hubs, ROW_N)
    assert found.rows is Rows.CANDIDATE
    assert found.present is not None
    assert torch.equal(found.present, present[ROW_N])
    assert found.x[found.present == 0].abs().max() == 0
    assert (found.x - tokens.x[ROW_N])[found.present == 1].abs().min() > 0


def test_one_gate_goes_over_all_tokens_of_a_group() -> None:
    torch.manual_seed(0)
    gate = ProxyGate(4, 2, num_hidden=1, bias=2.0)
    group = (Tokens(torch.randn(2, 3, 4), Rows.USER), Tokens(torch.randn(5, 2, 4), Rows.CANDIDATE))
    (found,) = gate(group, Tokens(torch.randn(5, 2, 4), Rows.CANDIDATE), ROW_N)
    share = found.x / torch.cat([group[0].x[ROW_N], group[1].x], dim=1)
    torch.testing.assert_close(share, share[:, :1].expand_as(share))
    assert 0 < share.min() < share.max() < 1
