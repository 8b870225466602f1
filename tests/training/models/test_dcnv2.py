from __future__ import annotations

from typing import Any

import pytest
import torch

from rankd_contract.signature import ROW
from rankd_training.errors import SettingError
from rankd_training.layers.split import join_sides
from rankd_training.models.dcnv2 import DCNv2, DCNv2Config
from tests.training.fields import mixed_schema, random_inputs, tiled


def make(**settings: Any) -> DCNv2:
    torch.manual_seed(0)
    return DCNv2(mixed_schema(), DCNv2Config(**{"embedding_std": 0.5, **settings})).eval()


@pytest.mark.parametrize("rank", [None, 3])
def test_cross_layers_follow_the_equations(rank: int | None) -> None:
    model = make(rank=rank, cross_layers=3)
    features = random_inputs(model.schema, num_users=3, num_items=9)
    with torch.no_grad():
        user_RSE, item_NSE = model.embedding(features)
        x0_ND = join_sides(user_RSE, item_NSE, features[ROW]).reshape(9, -1)
        found = model.cross(user_RSE.reshape(3, -1), item_NSE.reshape(9, -1), x0_ND, features[ROW])
        x_ND, first = x0_ND, model.cross.first
        for layer in range(3):
            if layer:
                crossed = model.cross.rest[layer - 1](x_ND)
            elif model.cross.first_up is None:
                assert first.bias_O is not None
                crossed = x_ND @ first.weight_IO + first.bias_O
            else:
                crossed = model.cross.first_up(x_ND @ first.weight_IO)
            x_ND = x0_ND * crossed + x_ND
    torch.testing.assert_close(found, x_ND)


@pytest.mark.parametrize("structure", ["parallel", "stacked"])
@pytest.mark.parametrize("mix", [(), (16, 8)])
def test_a_user_row_shared_by_candidates_equals_one_row_each(structure: str, mix: tuple[int, ...]) -> None:
    model = make(structure=structure, mix=mix)
    features = random_inputs(model.schema, num_users=2, num_items=11)
    with torch.no_grad():
        logits = model(features)
        torch.testing.assert_close(logits, model(tiled(features)), atol=1e-6, rtol=1e-6)
    assert logits.shape == (11, 2)


@pytest.mark.parametrize("structure", ["parallel", "stacked"])
def test_every_parameter_learns(structure: str) -> None:
    model = make(structure=structure, dropout=0.0).train()
    model(random_inputs(model.schema, num_users=8, num_items=64)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("settings", [{"hidden": ()}, {"cross_layers": 0}])
def test_a_config_without_layers_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="one or more of each"):
        make(**settings)
