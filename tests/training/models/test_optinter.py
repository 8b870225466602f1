from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from rankd_contract.pair_hash import pair_row
from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import ROW
from rankd_training.errors import SettingError
from rankd_training.layers.pairs import PairGroup
from rankd_training.layers.split import join_sides
from rankd_training.models.optinter import OptInter, OptInterConfig
from tests.training.fields import categorical_schema, mixed_schema, random_inputs, table_schema, tiled

CHOSEN = (
    "user_id*item_id=memorise",
    "user_id*age=memorise",
    "income*price=factorise",
    "recent*tags=factorise",
    "age*hour=factorise",
    "item_id*price=factorise",
)
VARIANTS: list[dict[str, Any]] = [{}, {"methods": CHOSEN}, {"methods": CHOSEN[:1]}, {"methods": ()}]


def make(schema: FeatureSchema | None = None, **settings: Any) -> OptInter:
    torch.manual_seed(0)
    settings = {"embedding_std": 0.5, "cross_rows": 50, "hidden": (16, 8), **settings}
    return OptInter(schema or mixed_schema(), OptInterConfig(**settings)).eval()


def groups(model: OptInter) -> dict[str, PairGroup]:
    return {name: group for name, group in model.groups.items() if isinstance(group, PairGroup)}


def printed(model: OptInter, features: Mapping[str, Tensor]) -> Tensor:
    """Every pair of every candidate by itself, each memorised row found by whole-number arithmetic."""
    width = model.config.embedding_width
    user_RSX, item_NSX = model.embedding(features)
    x_NSX = join_sides(user_RSX, item_NSX, features[ROW])
    num_user = user_RSX.shape[1]
    sides = {"user": (0, 0), "across": (0, num_user), "item": (num_user, num_user)}
    user_id_NS, item_id_NS = model.user_ids(features)[features[ROW]], model.item_ids(features)
    id_NS = torch.cat([user_id_NS, item_id_NS], dim=1)
    heat = max(0.01, 1 - model.config.cooling * float(model.steps))
    made: dict[str, list[Tensor]] = {"user": [], "across": [], "item": []}
    for name, group in groups(model).items():
        left_at, right_at = sides[name]
        start = 0
        memorised, factorised = [], []
        for at, pair in enumerate(group.pairs):
            left, right = pair.left + left_at, pair.right + right_at
            product_ND = x_NSX[:, left, width:] * x_NSX[:, right, width:]
            table_ND = torch.zeros_like(product_ND)
            if pair.ids is not None and (pair.method in {None, "memorise"}):
                assert group.table is not None
                rows = pair_row(pair.ids, id_NS[:, left].numpy(), id_NS[:, right].numpy())
                table_ND = group.table.weight[start + torch.from_numpy(np.asarray(rows))]
                start += pair.ids.num_rows
            if group.choice_P3 is not None:
                share = functional.softmax(group.choice_P3[at] / heat, dim=0)
                made[name].append(share[0] * table_ND + share[1] * product_ND)
            elif pair.method == "memorise":
                memorised.append(table_ND)
            elif pair.method == "factorise":
                factorised.append(product_ND)
        made[name] += memorised + factorised
    x = torch.cat(
        [
            x_NSX[:, :num_user, :width].flatten(1),
            *made["user"],
            x_NSX[:, num_user:, :width].flatten(1),
            *made["across"],
            *made["item"],
        ],
        dim=1,
    )
    assert model.first.bias_O is not None
    logits: Tensor = model.head(model.layers(x @ model.first.weight_IO + model.first.bias_O))
    return logits


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_the_serving_form_equals_every_pair_by_itself(settings: dict[str, Any]) -> None:
    model = make(**settings)
    features = random_inputs(model.schema, num_users=3, num_items=17)
    with torch.no_grad():
        for group in groups(model).values():
            if group.choice_P3 is not None:
                group.choice_P3.add_(torch.randn_like(group.choice_P3))
        torch.testing.assert_close(model(features), printed(model, features), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_a_user_row_shared_by_candidates_equals_one_row_each(settings: dict[str, Any]) -> None:
    model = make(**settings)
    features = random_inputs(model.schema, num_users=2, num_items=11)
    with torch.no_grad():
        torch.testing.assert_close(model(features), model(tiled(features)), atol=1e-6, rtol=1e-5)


def test_all_pairs_are_searched_and_only_those_of_single_ids_can_be_memorised() -> None:
    model = make()
    fields = list(model.schema.fields)
    names = [pair.name for group in groups(model).values() for pair in group.pairs]
    order = [*fields[:4], fields[8], *fields[4:8]]  # user, context, item
    assert sorted(names) == sorted(f"{a}*{b}" for a, b in combinations(order, 2))
    single = {"user_id", "age", "item_id", "hour"}
    memorisable = {p.name for g in groups(model).values() for p in g.pairs if p.ids is not None}
    assert memorisable == {name for name in names if set(name.split("*")) <= single}
    with torch.no_grad():
        for group in groups(model).values():
            assert group.choice_P3 is not None
            group.choice_P3[:, 0] += 5
    assert {text.split("=")[0] for text in model.chosen() if text.endswith("=memorise")} == memorisable


def test_the_softmax_cools_with_training_steps_and_not_below_its_lowest() -> None:
    model = make(cooling=0.3).train()
    features = random_inputs(model.schema, num_users=2, num_items=5)
    for _ in range(2):
        model(features)
    assert model.steps.item() == 2
    model.eval()(features)
    assert model.steps.item() == 2
    model.train()
    for _ in range(5):
        assert model(features).isfinite().all()


def test_the_users_own_pairs_are_made_once_a_user() -> None:
    model = make(categorical_schema(4, 3), methods=("u0*u1=memorise", "u2*u3=factorise", "u0*i1=memorise"))
    features = random_inputs(model.schema, num_users=1, num_items=100)
    work = []
    for given in (features, tiled(features)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(given)
        work.append(counter.get_total_flops())
    assert work[1] - work[0] == 99 * 2 * (4 * 20 + 2 * 10) * 16


def test_a_chosen_model_is_smaller_by_what_it_leaves_out() -> None:
    schema = categorical_schema(2, 2)  # four fields of seven ids, six pairs
    searching, chosen = make(schema), make(schema, methods=("u0*i1=memorise", "u1*i0=factorise"))

    def count(model: OptInter) -> int:
        return sum(p.numel() for p in model.parameters())

    shared = 4 * 7 * 30 + 16 + 2 * 16 + 16 * 8 + 8 + 2 * 8 + 8 + 1
    assert count(searching) == shared + 6 * (49 * 10 + 3) + (4 * 20 + 6 * 10) * 16
    assert count(chosen) == shared + 49 * 10 + (4 * 20 + 2 * 10) * 16


@pytest.mark.parametrize("settings", [{}, {"methods": CHOSEN}], ids=str)
def test_every_parameter_learns(settings: dict[str, Any]) -> None:
    model = make(**settings).train()
    model(random_inputs(model.schema, num_users=8, num_items=64)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_a_table_without_users_has_pairs_too() -> None:
    model = make(table_schema())
    features = random_inputs(model.schema, num_users=1, num_items=5)
    with torch.no_grad():
        assert model(features).shape == (5, 1)
    assert list(model.groups) == ["item"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"methods": ("user_id*nobody=memorise",)}, "is no pair of fields"),
        ({"methods": ("user_id*item_id=learn",)}, "one of memorise, factorise, naive"),
        ({"methods": ("item_id*user_id=memorise",)}, "in the schema's order"),
        ({"methods": ("recent*item_id=memorise",)}, "cannot be memorised"),
        ({"hidden": ()}, "one or more of each"),
    ],
)
def test_a_config_that_makes_no_model_is_refused_by_name(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        make(**settings)
