from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rankd_training.errors import SettingError
from rankd_training.models.mlcc import MLCC, Crossing, MLCCConfig
from rankd_training.models.mlcc_equations import equations
from tests.training.fields import categorical_schema, mixed_schema, random_inputs, tiled

# Counts of the published model: (slots, dynamic widths, channels) -> dense parameters.
PUBLISHED = [
    (39, (4, 1), 1, 305_893),
    (39, (4, 1), 2, 486_853),
    (39, (4, 1), 3, 667_813),
    (39, (4, 1), 4, 848_773),
    (22, (4, 1), 1, 191_174),
    (22, (4, 1), 2, 293_254),
    (22, (4, 1), 3, 395_334),
    (22, (4, 1), 4, 497_414),
    (17, (2, 1), 1, 119_434),
    (17, (2, 1), 2, 160_234),
    (17, (2, 1), 3, 201_034),
    (17, (2, 1), 4, 241_834),
]

VARIANTS: list[dict[str, Any]] = [
    {},
    {"channels": 3},
    {"dynamic_widths": (3,)},
    {"dynamic_widths": (4, 2)},
    {"dynamic_widths": (4, 3, 2), "keep": (0, 1, 2), "channels": 2},
    {"dynamic_widths": (4, 1, 2), "keep": (2,)},
    {"keep": ()},
    {"cross_activation": "relu"},
    {"cross_activation": "tanh", "dynamic_widths": (4, 2, 1), "keep": (0, 2)},
    {"cross_activation": "sigmoid", "heads": 1},
    {"layers": 2},
    {"layers": 3, "channels": 2, "residual": False, "keep": ()},
    {"channels": 2, "hidden": (12,), "task_hidden": (8, 4)},
]


def make(schema: Any = None, **settings: Any) -> MLCC:
    torch.manual_seed(0)
    return MLCC(schema or mixed_schema(), MLCCConfig(**{"embedding_std": 0.5, **settings})).eval()


def crossing(model: MLCC, channel: int = 0) -> Crossing:
    module = model.last.channels[channel]
    assert isinstance(module, Crossing)
    return module


@pytest.mark.parametrize(("slots", "widths", "channels", "expected"), PUBLISHED)
def test_dense_parameters_are_as_many_as_the_published_model_has(
    slots: int, widths: tuple[int, ...], channels: int, expected: int
) -> None:
    model = make(categorical_schema(9, slots - 9), dynamic_widths=widths, channels=channels)
    dense = [p.numel() for name, p in model.named_parameters() if not name.startswith("embedding.")]
    assert sum(dense) == expected


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_the_serving_form_equals_the_equations(settings: dict[str, Any]) -> None:
    model = make(**settings)
    features = random_inputs(model.schema, num_users=3, num_items=17)
    with torch.no_grad():
        torch.testing.assert_close(model(features), equations(model, features), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("layers", [1, 3])
def test_a_user_row_shared_by_candidates_equals_one_row_each(layers: int) -> None:
    model = make(layers=layers)
    features = random_inputs(model.schema, num_users=2, num_items=11)
    with torch.no_grad():
        torch.testing.assert_close(model(features), model(tiled(features)), atol=1e-6, rtol=1e-6)


def test_the_users_part_of_the_compressors_is_computed_once_a_user() -> None:
    model = make()
    features = random_inputs(model.schema, num_users=1, num_items=100)
    work = []
    for given in (features, tiled(features)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(given)
        work.append(counter.get_total_flops())
    slots, width = model.embedding.num_user_slots, model.config.embedding_width
    global_width, local_width = sum(crossing(model).sizes), model.config.local_width
    pooled = 4 * width  # the user's one list field, of four ids
    a_user = 2 * (slots * width * (global_width + local_width) + pooled)
    assert work[1] - work[0] == 99 * a_user


def test_crosses_are_homogeneous_of_degree_two_and_three() -> None:
    model = make(dynamic_widths=(4, 1))
    features = random_inputs(model.schema, num_users=2, num_items=5)
    with torch.no_grad():
        user_RSE, item_NSE = model.embedding(features)
        first, second = crossing(model).crosses(user_RSE, item_NSE, features["in_row"])
        scaled = crossing(model).crosses(2 * user_RSE, 2 * item_NSE, features["in_row"])
    torch.testing.assert_close(scaled[0], 4 * first)
    torch.testing.assert_close(scaled[1], 8 * second)


@pytest.mark.parametrize("activation", ["none", "relu"])
def test_the_last_of_many_dynamic_layers_has_their_number_plus_one_as_degree(activation: str) -> None:
    # relu keeps a positive factor, the other activations do not.
    model = make(dynamic_widths=(5, 4, 3, 2), heads=2, cross_activation=activation)
    features = random_inputs(model.schema, num_users=2, num_items=5)
    with torch.no_grad():
        user_RSE, item_NSE = model.embedding(features)
        crosses = crossing(model).crosses(user_RSE, item_NSE, features["in_row"])
        scaled = crossing(model).crosses(2 * user_RSE, 2 * item_NSE, features["in_row"])
    for degree, (z, by_two) in enumerate(zip(crosses, scaled, strict=True), start=2):
        torch.testing.assert_close(by_two, 2**degree * z)


@pytest.mark.parametrize("layers", [2, 3])
def test_each_further_layer_has_the_size_of_its_equations(layers: int) -> None:
    schema, slots, channels, width, heads = categorical_schema(3, 4), 7, 2, 16, 4
    one, more = make(schema, channels=channels), make(schema, channels=channels, layers=layers)
    compressors = channels * slots * width * heads * (width * 4 + 4 * 1)
    local = slots * (channels * heads * (4 + 1) + channels * width) * channels * width
    gate = 2 * slots * (slots // 2) + slots // 2 + slots
    sizes = [sum(p.numel() for p in model.parameters()) for model in (one, more)]
    assert sizes[1] - sizes[0] == (layers - 1) * (compressors + local + gate)


def test_a_residual_layer_that_makes_nothing_leaves_the_one_layer_model() -> None:
    one, two = make(), make(layers=2)
    features = random_inputs(one.schema, num_users=2, num_items=9)
    with torch.no_grad():
        two.load_state_dict(one.state_dict(), strict=False)
        for parameter in two.inner.parameters():
            parameter.zero_()
        torch.testing.assert_close(two(features), one(features), atol=1e-6, rtol=1e-6)


def test_several_channels_with_the_others_silenced_equal_one() -> None:
    schema = categorical_schema(3, 4)
    one, two = make(schema), make(schema, channels=2)
    features = random_inputs(schema, num_users=2, num_items=9)
    width, kept = one.config.embedding_width, crossing(one).out_width
    with torch.no_grad():
        # Channel 0 of the wide model is the narrow model; nothing reads channel 1.
        two.embedding.table.weight[:, :width] = one.embedding.table.weight
        crossing(two).compress.weight_IO.copy_(crossing(one).compress.weight_IO)
        two.last.local.weight_SKO.zero_()
        two.last.local.weight_SKO[:, :kept] = one.last.local.weight_SKO[:, :kept]
        two.last.local.weight_SKO[:, 2 * kept : 2 * kept + width] = one.last.local.weight_SKO[:, kept:]
        for part, source in ((two.last.gate, one.last.gate), (two.tower, one.tower), (two.head, one.head)):
            part.load_state_dict(source.state_dict())
        torch.testing.assert_close(two(features), one(features))


@pytest.mark.parametrize("layers", [1, 2])
def test_every_parameter_learns(layers: int) -> None:
    model = make(channels=2, layers=layers).train()
    model(random_inputs(model.schema, num_users=8, num_items=64)).square().sum().backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_tasks_with_towers_of_their_own_share_what_is_below() -> None:
    shared, own = make(), make(task_hidden=(8,))
    assert shared.head.state_dict().keys() == {"weight", "bias"}, "runs from before there were any are read"
    features = random_inputs(own.schema, num_users=2, num_items=9)
    with torch.no_grad():
        before = own(features)
        own.output_biases()[1].add_(1.0)
        after = own(features)
    torch.testing.assert_close(after - before, torch.tensor([0.0, 1.0]).expand_as(before))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"keep": (0, 3)}, "keep"),
        ({"dynamic_widths": ()}, "dynamic_widths"),
        ({"dynamic_widths": (4, 0)}, "dynamic_widths"),
        ({"channels": 0}, "channels"),
        ({"layers": 0}, "layers"),
        ({"cross_activation": "gelu"}, "cross_activation"),
    ],
)
def test_a_config_that_makes_no_model_is_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingError, match=named):
        make(**settings)
