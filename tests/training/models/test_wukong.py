from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from rankd_contract.signature import ROW
from rankd_training.errors import SettingError
from rankd_training.layers.split import join_sides
from rankd_training.models.wukong import Wukong, WukongConfig, WukongLayer
from tests.training.fields import categorical_schema, mixed_schema, random_inputs, tiled

VARIANTS: list[dict[str, Any]] = [
    {},
    {"layers": 1},
    {"layers": 3, "factor_slots": 3, "compressed_slots": 6},  # nine slots in, nine out: nothing to project
    {"rank": None},
    {"projection": "attentive", "rank": 5},
    {"rank": 1, "factor_hidden": (), "hidden": ()},
]


def make(schema: Any = None, **settings: Any) -> Wukong:
    torch.manual_seed(0)
    return Wukong(schema or mixed_schema(), WukongConfig(**{"embedding_std": 0.5, **settings})).eval()


def layers(model: Wukong) -> list[WukongLayer]:
    found = [model.first, *model.rest]
    assert all(isinstance(layer, WukongLayer) for layer in found)
    return found


def printed(model: Wukong, features: Mapping[str, Tensor]) -> Tensor:
    """The equations as they stand: X X^T first, then Y; nothing split, nothing fused."""
    config = model.config
    user_RnE, item_NnE = model.embedding(features)
    x_NnE = join_sides(user_RnE, item_NnE, features[ROW])
    for layer in layers(model):
        y_On, compress_Ln, residual_On = torch.split(layer.mix.weight_OS, layer.sizes)
        machine_Nnn = torch.einsum("nie,nje->nij", x_NnE, x_NnE)
        if config.rank is not None:
            if layer.project is None:
                machine_Nnn = torch.einsum("nij,kj->nik", machine_Nnn, y_On)
            else:
                y_N = layer.project(torch.einsum("oi,nie->noe", y_On, x_NnE).flatten(1))
                machine_Nnn = torch.einsum(
                    "nij,njk->nik", machine_Nnn, y_N.reshape(-1, x_NnE.shape[1], config.rank)
                )
        normal = functional.layer_norm(
            machine_Nnn.flatten(1),
            (layer.factored_width,),
            layer.factor_norm.weight,
            layer.factor_norm.bias,
        )
        factor_NFE = layer.factor_mlp(normal).reshape(-1, config.factor_slots, config.embedding_width)
        compressed_NLE = torch.einsum("li,nie->nle", compress_Ln, x_NnE)
        residual = torch.einsum("oi,nie->noe", residual_On, x_NnE) if layer.sizes[2] else x_NnE
        x_NnE = layer.norm(torch.cat([factor_NFE, compressed_NLE], 1) + residual)
    logits: Tensor = model.head(model.tower(x_NnE.flatten(1)))
    return logits


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_the_serving_form_equals_the_equations(settings: dict[str, Any]) -> None:
    model = make(**settings)
    features = random_inputs(model.schema, num_users=3, num_items=17)
    with torch.no_grad():
        torch.testing.assert_close(model(features), printed(model, features), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_a_user_row_shared_by_candidates_equals_one_row_each(settings: dict[str, Any]) -> None:
    model = make(**settings)
    features = random_inputs(model.schema, num_users=2, num_items=11)
    with torch.no_grad():
        torch.testing.assert_close(model(features), model(tiled(features)), atol=1e-6, rtol=1e-5)


def test_the_users_share_of_the_first_layer_is_computed_once_a_user() -> None:
    model = make()
    features = random_inputs(model.schema, num_users=1, num_items=100)
    work = []
    for given in (features, tiled(features)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(given)
        work.append(counter.get_total_flops())
    width, slots = model.config.embedding_width, model.embedding.num_user_slots
    a_user = 2 * width * (slots * sum(model.first.sizes) + 4)  # and the pooling of a list of four
    assert work[1] - work[0] == 99 * a_user


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("rank", [None, 6])
def test_sizes_are_those_of_the_equations(num_layers: int, rank: int | None) -> None:
    n, e, f, c, m, h = 7, 5, 3, 4, 11, 13
    model = make(
        categorical_schema(3, 4),
        layers=num_layers,
        rank=rank,
        embedding_width=e,
        factor_slots=f,
        compressed_slots=c,
        factor_hidden=(m,),
        hidden=(h,),
    )

    def layer(slots: int) -> int:
        flat = slots * (rank or slots)
        matrices = slots * ((rank or 0) + c + (0 if slots == f + c else f + c))
        return matrices + 2 * flat + flat * m + m + m * f * e + f * e + 2 * e

    expected = layer(n) + (num_layers - 1) * layer(f + c) + (f + c) * e * h + h + h + 1
    found = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("embedding."))
    assert found == expected


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_every_parameter_learns(settings: dict[str, Any]) -> None:
    model = make(**{"dropout": 0.0, **settings}).train()
    model(random_inputs(model.schema, num_users=8, num_items=64)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"layers": 0}, "layers"),
        ({"compressed_slots": 0}, "compressed_slots"),
        ({"rank": 0}, "rank 0"),
        ({"projection": "none"}, "projection 'none'"),
        ({"projection": "attentive", "rank": None}, "attentive"),
    ],
)
def test_a_config_that_makes_no_model_is_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingError, match=named):
        make(**settings)
