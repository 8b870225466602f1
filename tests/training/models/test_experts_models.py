"""MMoE and PLE: batched and split as they are served, they are the printed mixtures of experts."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import ROW
from rankd_training.errors import SettingError
from rankd_training.layers.experts import Experts
from rankd_training.layers.split import SplitLinear, join_sides
from rankd_training.models import registry
from rankd_training.models.mmoe import MMoE
from rankd_training.models.ple import PLE
from tests.training.fields import categorical_schema, mixed_schema, random_inputs, tiled

SIZES = {"expert_hidden": [7, 5], "tower_hidden": [6]}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("mmoe", {"experts": 3}),
    ("mmoe", {"experts": 1, "expert_hidden": [7]}),
    ("ple", {"layers": 1}),
    ("ple", {"layers": 2, "task_experts": 3}),
    ("ple", {"layers": 3, "shared_experts": 1, "expert_hidden": [7]}),
]


def make(name: str, schema: FeatureSchema | None = None, **settings: Any) -> MMoE | PLE:
    torch.manual_seed(0)
    model = registry.build(name, schema or mixed_schema(), {"embedding_std": 0.5, **SIZES, **settings}).eval()
    assert isinstance(model, MMoE | PLE)
    return model


def expert(experts: Experts, i: int, first_NX: Tensor) -> Tensor:
    """Expert i alone, from its own first Linear's output on -> [N, H]."""
    x = torch.relu(first_NX[:, i * experts.first_width : (i + 1) * experts.first_width])
    for weight, bias in zip(experts.weights, experts.biases, strict=True):
        x = torch.relu(x @ weight[i] + bias[i])
    return x


def whole(layer: SplitLinear, x: Tensor) -> Tensor:
    made = x @ layer.weight_IO
    return made if layer.bias_O is None else made + layer.bias_O


def gated(scores_Nn: Tensor, experts: list[Tensor]) -> Tensor:
    share_Nn = scores_Nn.exp() / scores_Nn.exp().sum(1, keepdim=True)
    parts = [share_Nn[:, i : i + 1] * x for i, x in enumerate(experts)]
    return torch.stack(parts).sum(0)


def printed_mmoe(model: MMoE, x: Tensor) -> Tensor:
    n = model.config.experts
    first = whole(model.first, x)
    experts = [expert(model.experts, i, first) for i in range(n)]
    scores = whole(model.gate, x)
    return torch.cat(
        [
            tower(gated(scores[:, k * n : (k + 1) * n], experts))
            for k, tower in enumerate(model.towers.towers)
        ],
        dim=1,
    )


def printed_ple(model: PLE, x: Tensor) -> Tensor:
    tasks, own, shared = (
        len(model.schema.tasks),
        model.config.task_experts,
        model.config.shared_experts,
    )
    groups = [x] * (tasks + 1)
    for number in range(model.config.layers):
        last = number == model.config.layers - 1
        layer: Any = model.rest[number - 1] if number else model.first
        sizes = [own] * tasks + [shared]
        if number:
            first = torch.cat([f(g) for f, g in zip(layer.firsts, groups, strict=True)], dim=1)
            scores = [gate(g) for gate, g in zip(layer.gates, groups, strict=False)]
        else:
            first = whole(layer.first, x)
            scores = list(torch.split(whole(layer.gate, x), layer.core.gate_sizes, dim=1))
        experts = [expert(layer.core.experts, i, first) for i in range(sum(sizes))]
        mine = [experts[k * own : (k + 1) * own] + experts[tasks * own :] for k in range(tasks)]
        seen = mine if last else [*mine, experts]
        groups = [gated(s, e) for s, e in zip(scores, seen, strict=True)]
    assert len(groups) == tasks
    return torch.cat([tower(g) for tower, g in zip(model.towers.towers, groups, strict=True)], dim=1)


def printed(model: MMoE | PLE, features: Mapping[str, Tensor]) -> Tensor:
    user_RSE, item_NSE = model.embedding(features)
    x = join_sides(user_RSE, item_NSE, features[ROW]).flatten(1)
    return printed_mmoe(model, x) if isinstance(model, MMoE) else printed_ple(model, x)


@pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=str)
def test_the_serving_form_equals_the_equations(name: str, settings: dict[str, Any]) -> None:
    model = make(name, **settings)
    features = random_inputs(model.schema, num_users=3, num_items=17)
    with torch.no_grad():
        torch.testing.assert_close(model(features), printed(model, features), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=str)
def test_a_user_row_shared_by_candidates_equals_one_row_each(name: str, settings: dict[str, Any]) -> None:
    model = make(name, **settings)
    features = random_inputs(model.schema, num_users=2, num_items=11)
    with torch.no_grad():
        torch.testing.assert_close(model(features), model(tiled(features)), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("name", "first", "gates"), [("mmoe", 8 * 7, 2 * 8), ("ple", 6 * 7, 2 * 4 + 6)])
def test_the_users_part_of_experts_and_gates_is_computed_once_a_user(
    name: str, first: int, gates: int
) -> None:
    model = make(name)
    features = random_inputs(model.schema, num_users=1, num_items=100)
    work = []
    for given in (features, tiled(features)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(given)
        work.append(counter.get_total_flops())
    pooled = 4 * model.config.embedding_width
    assert work[1] - work[0] == 99 * 2 * (model.user_width * (first + gates) + pooled)


@pytest.mark.parametrize("num_tasks", [1, 3])
@pytest.mark.parametrize(("name", "settings"), VARIANTS[1:4], ids=str)
def test_sizes_are_those_of_the_equations(name: str, settings: dict[str, Any], num_tasks: int) -> None:
    model = make(name, categorical_schema(3, 4, num_tasks=num_tasks), embedding_width=5, **settings)
    hidden = list(model.config.expert_hidden)
    flat, out = 7 * 5, hidden[-1]

    def experts(inputs: int, count: int) -> int:
        widths = [inputs, *hidden]
        return count * sum(a * b + b for a, b in pairwise(widths))

    towers = num_tasks * (out * 6 + 6 + 6 + 1)
    if isinstance(model, MMoE):
        expected = experts(flat, model.config.experts) + num_tasks * flat * model.config.experts
    else:
        own, shared, layers = (
            model.config.task_experts,
            model.config.shared_experts,
            model.config.layers,
        )
        count, expected = num_tasks * own + shared, 0
        for layer in range(layers):
            inputs = out if layer else flat
            gates = num_tasks * (own + shared) + (0 if layer == layers - 1 else count)
            expected += experts(inputs, count) + inputs * gates
    found = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("embedding."))
    assert found == expected + towers


def test_what_only_another_tasks_gate_can_choose_does_not_reach_a_task() -> None:
    model = make("ple", layers=1)
    assert isinstance(model, PLE)
    features = random_inputs(model.schema, num_users=2, num_items=9)
    with torch.no_grad():
        before = model(features)
        own = model.config.task_experts * 7
        model.first.first.weight_IO[:, :own].normal_()  # the first task's own experts
        after = model(features)
    torch.testing.assert_close(after[:, 1], before[:, 1], atol=0, rtol=0)
    assert (after[:, 0] - before[:, 0]).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=str)
def test_every_parameter_learns(name: str, settings: dict[str, Any]) -> None:
    model = make(name, dropout=0.0, **settings).train()
    model(random_inputs(model.schema, num_users=8, num_items=64)).square().sum().backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == (["gate.weight_IO"] if settings.get("experts") == 1 else [])  # one expert: no choice


@pytest.mark.parametrize(
    ("name", "settings", "named"),
    [
        ("mmoe", {"experts": 0}, "0 experts"),
        ("mmoe", {"expert_hidden": []}, "experts of"),
        ("ple", {"layers": 0}, "layers"),
        ("ple", {"shared_experts": 0}, "shared_experts"),
    ],
)
def test_a_config_that_makes_no_model_is_refused_by_name(
    name: str, settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(SettingError, match=named):
        make(name, **settings)
