from __future__ import annotations

import torch

from rankd_training.layers.heads import Tower


def test_a_tower_without_widths_passes_its_input_on() -> None:
    x = torch.randn(2, 3)
    tower = Tower(3, (), dropout=0.5)
    assert tower.out_width == 3
    assert torch.equal(tower(x), x)


def test_biases_start_at_zero_and_weights_within_xaviers_bound() -> None:
    tower = Tower(30, (20,), dropout=0.0)
    weight, bias = tower.parameters()
    assert bias.abs().max() == 0
    assert weight.abs().max() <= (6 / 50) ** 0.5
