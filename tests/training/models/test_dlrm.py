from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations, combinations_with_replacement
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from rankd_contract.schema import FeatureSchema
from rankd_contract.schema_file import parse_schema
from rankd_contract.signature import ROW
from rankd_training.errors import SettingError
from rankd_training.layers.split import SplitLinear
from rankd_training.models.dlrm import DLRM, DLRMConfig
from tests.training.fields import MIXED, categorical_schema, mixed_schema, random_inputs, table_schema, tiled

ITEM_NUMBERS = "\n".join(line for line in MIXED.splitlines() if "income" not in line)
USER_NUMBERS = "\n".join(line for line in MIXED.splitlines() if "price" not in line and "weight" not in line)
SCHEMAS = {
    "both sides": mixed_schema(),
    "item's numbers": parse_schema(ITEM_NUMBERS),
    "user's numbers": parse_schema(USER_NUMBERS),
    "no numbers": categorical_schema(3, 4),
    "one and one": categorical_schema(1, 1),
    "a table": table_schema(),
}


def make(schema: FeatureSchema | None = None, **settings: Any) -> DLRM:
    torch.manual_seed(0)
    settings = {"embedding_std": 0.5, "bottom": (9,), "top": (12, 6), "embedding_width": 4, **settings}
    return DLRM(schema or mixed_schema(), DLRMConfig(**settings)).eval()


def split(layer: SplitLinear, x: Tensor) -> Tensor:
    assert layer.bias_O is not None
    return x @ layer.weight_IO + layer.bias_O


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1, keepdim=True)


def printed(model: DLRM, features: Mapping[str, Tensor]) -> Tensor:
    """All vectors of every candidate in one list, each pair's dot by itself, one top MLP over all of it.

    Only the order of the first layer's inputs is the model's own.
    """
    row_N = features[ROW]
    user_RUE, item_NIE = model.embedding(features)
    users, owns = list(user_RUE[row_N].unbind(1)), list(item_NIE.unbind(1))
    inputs_of_user: list[Tensor] = []
    inputs_of_own: list[Tensor] = []
    bottom = model.bottom
    if bottom is not None:
        numbers = [features[name][row_N] for name in bottom.user] + [features[name] for name in bottom.item]
        x = torch.cat(numbers, dim=1)
        x = split(bottom.first, x) if isinstance(bottom.first, SplitLinear) else bottom.first(x)
        z_NE = bottom.rest(torch.relu(x))
        (users if bottom.of_user else owns).append(z_NE)
        (inputs_of_user if bottom.of_user else inputs_of_own).append(z_NE)
    pairs = combinations_with_replacement if model.config.self_interaction else combinations
    inputs_of_own += [dot(u, c) for u in users for c in owns]
    inputs_of_user += [dot(a, b) for a, b in pairs(users, 2)]
    inputs_of_own += [dot(a, b) for a, b in pairs(owns, 2)]
    x = torch.cat(inputs_of_user + inputs_of_own, dim=1)
    x = split(model.first, x)
    logits: Tensor = model.head(model.top(torch.relu(x)))
    return logits


@pytest.mark.parametrize("itself", [False, True])
@pytest.mark.parametrize("name", SCHEMAS)
def test_the_serving_form_equals_all_pairs_one_by_one(name: str, itself: bool) -> None:
    model = make(SCHEMAS[name], self_interaction=itself)
    features = random_inputs(model.schema, num_users=3, num_items=17)
    with torch.no_grad():
        torch.testing.assert_close(model(features), printed(model, features), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_user_row_shared_by_candidates_equals_one_row_each(name: str) -> None:
    model = make(SCHEMAS[name])
    features = random_inputs(model.schema, num_users=2, num_items=11)
    with torch.no_grad():
        torch.testing.assert_close(model(features), model(tiled(features)), atol=1e-6, rtol=1e-5)


def test_dots_among_the_users_vectors_are_computed_once_a_user() -> None:
    model = make()
    features = random_inputs(model.schema, num_users=1, num_items=100)
    work = []
    for given in (features, tiled(features)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(given)
        work.append(counter.get_total_flops())
    slots, width = model.embedding.num_user_slots, 4
    assert slots == 4  # user_id, recent, age, hour; income is a number
    pooled, bottom = 4 * width, 1 * 9
    a_user = 2 * (slots * slots * width + model.user_dots.count * 12 + pooled + bottom)
    assert work[1] - work[0] == 99 * a_user


@pytest.mark.parametrize("itself", [False, True])
def test_sizes_are_those_of_the_equations(itself: bool) -> None:
    model = make(self_interaction=itself)  # 6 fields with tables, 3 numbers, 2 tasks
    vectors, width = 7, 4
    pairs = vectors * (vectors + 1 if itself else vectors - 1) // 2
    bottom = 3 * 9 + 9 + 9 * width + width
    top = (pairs + width) * 12 + 12 + 12 * 6 + 6 + 6 * 2 + 2
    found = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("embedding."))
    assert found == bottom + top


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_parameter_learns(name: str) -> None:
    model = make(SCHEMAS[name]).train()
    model(random_inputs(model.schema, num_users=8, num_items=64)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("settings", [{"top": ()}, {"embedding_width": 0}])
def test_a_config_that_makes_no_model_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="one or more of each"):
        make(**settings)
