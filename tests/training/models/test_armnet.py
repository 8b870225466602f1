from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rankd_contract.signature import ROW
from rankd_training.errors import SettingError
from rankd_training.layers.split import join_sides
from rankd_training.models.armnet import ARMNet, ARMNetConfig
from rankd_training.models.armnet_equations import equations
from tests.training.fields import categorical_schema, mixed_schema, random_inputs, tiled

PLUS = {"heads": 4, "neurons": 4, "deep_hidden": (30, 20)}
# Table 2 of the paper: fields, K, o, alpha, hidden, deep_hidden -> dense parameters.
PUBLISHED = [
    (10, 8, 32, 2.0, (300, 300), (), 866_533),  # Frappe
    (3, 1, 16, 2.0, (300, 300), (), 140_441),  # MovieLens-tag
    (22, 1, 32, 1.5, (200, 200, 200), (), 147_189),  # Avazu
    (39, 4, 64, 2.0, (500, 500), (), 1_546_957),  # Criteo
    (43, 32, 1, 1.7, (300,), (), 102_161),  # Diabetes130
    (10, 4, 4, 1.5, (300, 300), (300, 300), 262_957),  # ARM-Net+ from here, in the same order
    (3, 1, 8, 2.5, (300, 300), (300, 300), 217_425),
    (22, 8, 8, 2.0, (200, 200, 200), (200, 200, 200), 338_981),
    (39, 4, 32, 2.0, (500, 500), (500, 500), 1_348_933),
    (43, 8, 64, 1.5, (300,), (300,), 1_696_365),
]
VARIANTS: list[dict[str, Any]] = [
    {},
    {"heads": 3, "neurons": 5, "key_width": 7},
    {"alpha": 1.0},
    {"alpha": 2.0, "heads": 4, "neurons": 8},
    {"alpha": 1.7},
    {"alpha": 2.5},
    {"neurons": 1, "heads": 6, "hidden": (20,)},
    PLUS,
    {**PLUS, "alpha": 2.0, "heads": 1, "deep_hidden": (12,)},
]


def make(schema: Any = None, **settings: Any) -> ARMNet:
    """A model as after training: scores far apart, norms with statistics and scales of their own."""
    torch.manual_seed(0)
    model = ARMNet(schema or mixed_schema(), ARMNetConfig(**{"embedding_std": 0.5, **settings})).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
    return model


def dense(model: ARMNet) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if not name.startswith("embedding."))


@pytest.mark.parametrize(("slots", "heads", "neurons", "alpha", "hidden", "deep", "expected"), PUBLISHED)
def test_dense_parameters_are_as_many_as_the_published_model_has(
    slots: int,
    heads: int,
    neurons: int,
    alpha: float,
    hidden: tuple[int, ...],
    deep: tuple[int, ...],
    expected: int,
) -> None:
    model = make(
        categorical_schema(1, slots - 1),
        heads=heads,
        neurons=neurons,
        alpha=alpha,
        hidden=hidden,
        deep_hidden=deep,
    )
    assert dense(model) == expected


@pytest.mark.parametrize(("width", "with_5500_features"), [(10, 177_421), (100, 953_221)])
def test_the_one_head_variant_has_its_published_size(width: int, with_5500_features: int) -> None:
    model = make(categorical_schema(4, 6), embedding_width=width, neurons=10, alpha=1.7)
    assert dense(model) + 5500 * width == with_5500_features


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_the_serving_form_equals_the_equations(settings: dict[str, Any]) -> None:
    model = make(**settings)
    features = random_inputs(model.schema, num_users=3, num_items=17)
    with torch.no_grad():
        found, printed = model(features), equations(model, features)
    assert found.std() > 0.01
    # Scores are sums in another order; above alpha 2 the entmax of nearly nothing is steep.
    tolerance = 1e-6 if model.config.alpha <= 2 else 1e-4
    torch.testing.assert_close(found.sigmoid(), printed.sigmoid(), atol=tolerance, rtol=0)


@pytest.mark.parametrize("settings", [s for s in VARIANTS if s.get("alpha", 1.5) <= 2], ids=str)
def test_a_user_row_shared_by_candidates_equals_one_row_each(settings: dict[str, Any]) -> None:
    model = make(**settings)
    features = random_inputs(model.schema, num_users=2, num_items=11)
    with torch.no_grad():
        torch.testing.assert_close(
            model(features).sigmoid(), model(tiled(features)).sigmoid(), atol=1e-6, rtol=0
        )


@pytest.mark.parametrize("settings", [{"neurons": 8}, PLUS], ids=["armnet", "plus"])
def test_the_users_scores_and_deep_part_are_computed_once_a_user(settings: dict[str, Any]) -> None:
    model = make(**settings)
    features = random_inputs(model.schema, num_users=1, num_items=100)
    work = []
    for given in (features, tiled(features)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(given)
        work.append(counter.get_total_flops())
    slots, width = model.embedding.num_user_slots, model.config.embedding_width
    deep = sum(model.config.deep_hidden[:1])
    pooled = 4 * model.embedding.width  # the user's one list field, of four ids
    a_user = 2 * (slots * width * (model.neurons.num_neurons + deep) + pooled)
    assert work[1] - work[0] == 99 * a_user


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
def test_a_neuron_is_the_product_of_powers_of_its_fields(alpha: float) -> None:
    model = make(alpha=alpha, neurons=6)
    features = random_inputs(model.schema, num_users=2, num_items=9)
    with torch.no_grad():
        weight_NSO = model.field_weights(features)
        user_RSE, item_NSE = model.embedding(features)
        embedded_NSE = join_sides(user_RSE, item_NSE, features[ROW])
        found_NOE = model.neurons(embedded_NSE, weight_NSO)
        power_NSOE = embedded_NSE.exp()[:, :, None] ** weight_NSO[..., None]
    torch.testing.assert_close(found_NOE, power_NSOE.prod(1))


def test_attention_is_a_distribution_over_fields() -> None:
    model = make(neurons=6)
    nn.init.ones_(model.neurons.value_KOS)
    with torch.no_grad():
        gate_NSO = model.field_weights(random_inputs(model.schema, num_users=2, num_items=9))
    torch.testing.assert_close(gate_NSO.sum(1), torch.ones(9, 6))
    assert (gate_NSO == 0).any()


def test_the_plus_starts_as_the_mean_of_its_halves_and_is_one_without_the_other() -> None:
    schema = mixed_schema()
    plus, plain = make(schema, **PLUS), make(schema, **{**PLUS, "deep_hidden": ()})
    features = random_inputs(schema, num_users=2, num_items=9)
    width = plain.config.embedding_width
    assert plus.deep is not None
    assert torch.equal(plus.deep.share_2T, torch.full((2, 2), 0.5))
    with torch.no_grad():
        for name, tensor in plain.state_dict().items():
            whole = plus.state_dict()[name]
            (whole[:, :width] if name.startswith("embedding.") else whole).copy_(tensor)
        plus.deep.share_2T.copy_(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
        torch.testing.assert_close(plus(features), plain(features), atol=1e-6, rtol=1e-6)


def test_numbers_are_bounded_on_a_copy() -> None:
    model = make(value_range=(1e-3, 1.0))
    free = make()
    features = random_inputs(model.schema, num_users=2, num_items=9)
    before = {name: tensor.clone() for name, tensor in features.items()}
    with torch.no_grad():
        found = model(features)
        assert all(torch.equal(before[name], features[name]) for name in before)
        for name in ("in_user_values", "in_item_values"):
            features[name] = features[name].clamp(1e-3, 1.0)
        torch.testing.assert_close(found, free(features))


def test_a_number_far_outside_its_range_gives_a_finite_score() -> None:
    model = make()
    features = random_inputs(model.schema, num_users=2, num_items=9)
    features["in_item_values"] *= 1e30
    with torch.no_grad():
        assert model(features).isfinite().all()


def test_published_starts_differ_by_how_the_heads_are_counted() -> None:
    heads = {"heads": 8, "neurons": 32}
    matrix, stack = make(fans="matrix", **heads).neurons, make(fans="stack", **heads).neurons
    slots = matrix.value_KOS.shape[2]
    bound = 1.414 * (6 / (slots + 32)) ** 0.5
    assert matrix.value_KOS.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert matrix.value_KOS.abs().max() <= bound
    bound = 1.414 * (6 / (slots * (8 + 32))) ** 0.5
    assert stack.value_KOS.abs().max().item() == pytest.approx(bound, rel=0.01)


@pytest.mark.parametrize("alpha", [1.0, 1.5, 1.7, 2.0])
def test_every_parameter_learns(alpha: float) -> None:
    model = make(alpha=alpha, **PLUS).train()
    model(random_inputs(model.schema, num_users=8, num_items=64)).sigmoid().square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_a_last_batch_of_one_row_can_be_learned_from() -> None:
    model = make(**PLUS).train()
    model(random_inputs(model.schema, num_users=1, num_items=1)).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"heads": 0}, "heads 0"),
        ({"neurons": 0}, "neurons 0"),
        ({"hidden": ()}, "hidden"),
        ({"key_width": 0}, "key_width 0"),
        ({"alpha": 0.5}, "alpha 0.5"),
        ({"alpha": float("nan")}, "alpha nan"),
        ({"fans": "both"}, "fans 'both'"),
        ({"max_exponent": 0.0}, "max_exponent"),
        ({"value_range": (1.0, 0.0)}, "value_range"),
        ({"value_range": (1.0,)}, "value_range"),
    ],
)
def test_a_config_that_makes_no_model_is_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingError, match=named):
        ARMNet(mixed_schema(), replace(ARMNetConfig(), **settings))
