from __future__ import annotations

import pytest
import torch
from torch import nn

from rankd_training.errors import SettingError
from rankd_training.learning.weight_average import WeightAverage


def model(value: float) -> nn.Module:
    layer = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            tensor.fill_(value)
    return layer


def set_to(layer: nn.Module, value: float) -> None:
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            tensor.fill_(value)


def test_it_is_the_moving_mean_of_weights_and_running_statistics() -> None:
    layer = model(0.0)
    average = WeightAverage(layer, 0.5)
    expected = 0.0
    for step, value in enumerate([1.0, 5.0, -3.0, 2.0], start=1):
        set_to(layer, value)
        average.step()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    for name, tensor in average.weights().items():
        wanted = 2 if name.endswith("num_batches_tracked") else expected  # a count is no weight
        torch.testing.assert_close(tensor, torch.full_like(tensor, wanted))


def test_the_model_has_the_mean_for_a_while_and_then_its_own_weights_again() -> None:
    layer = model(0.0)
    average = WeightAverage(layer, 0.9)
    set_to(layer, 1.0)
    average.step()
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    with average.in_place():
        assert layer.state_dict()["0.weight"].allclose(torch.full((1, 2), 9 / 11))
    assert all(torch.equal(before[name], tensor) for name, tensor in layer.state_dict().items())


def test_a_saved_state_goes_on_as_if_nothing_had_happened() -> None:
    whole, other = model(0.0), model(7.0)
    one, two = WeightAverage(whole, 0.9), WeightAverage(other, 0.9)
    set_to(whole, 1.0)
    one.step()
    two.load({name: tensor.clone() for name, tensor in one.state().items()})
    for layer, average in ((whole, one), (other, two)):
        set_to(layer, -4.0)
        average.step()
    for first, second in zip(one.weights().values(), two.weights().values(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(SettingError, match=r"expected 0 \(none\) or a share below 1"):
        WeightAverage(model(0.0), decay)
