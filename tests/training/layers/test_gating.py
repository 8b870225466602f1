from __future__ import annotations

import torch

from rankd_training.layers.gating import SlotGate


def test_a_gate_scales_whole_slots_by_a_weight_between_zero_and_one() -> None:
    torch.manual_seed(0)
    x_NSO = torch.randn(4, 6, 3)
    ratio = SlotGate(6)(x_NSO) / x_NSO
    torch.testing.assert_close(ratio, ratio[:, :, :1].expand_as(ratio))
    assert ratio.min() > 0
    assert ratio.max() < 1
