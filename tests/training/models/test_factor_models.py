"""FM, DeepFM and DNN: the factorised form is the printed one, and no user's sum is computed twice."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import ROW
from rankd_training.errors import SettingError
from rankd_training.layers.factors import pairwise_products
from rankd_training.layers.split import join_sides
from rankd_training.models.deepfm import DeepFM, DeepFMConfig
from rankd_training.models.dnn import DNN, DNNConfig
from rankd_training.models.fm import FactorizationMachine, FMConfig
from tests.training.fields import categorical_schema, mixed_schema, random_inputs, tiled

Model = FactorizationMachine | DeepFM | DNN
BUILDERS = {"fm": (FactorizationMachine, FMConfig), "deepfm": (DeepFM, DeepFMConfig), "dnn": (DNN, DNNConfig)}


def make(name: str, schema: FeatureSchema | None = None, **settings: Any) -> Model:
    torch.manual_seed(0)
    model, config = BUILDERS[name]
    built: Model = model(schema or mixed_schema(), config(**{"embedding_std": 0.5, **settings})).eval()
    if not isinstance(built, DNN):
        with torch.no_grad():  # weights as after training
            built.embedding.table.weight.normal_(0, 0.5)
    return built


def linear_and_pairs(model: FactorizationMachine | DeepFM, features: dict[str, Tensor]) -> Tensor:
    """Equation 1 of FM without w_0: the linear term and every pair, one by one -> [N, T]."""
    user_RSX, item_NSX = model.embedding(features)
    x_NSX = join_sides(user_RSX, item_NSX, features[ROW])
    tasks = model.num_tasks
    logits = x_NSX[:, :, :tasks].sum(1)
    for i, j in combinations(range(x_NSX.shape[1]), 2):
        product_NE = x_NSX[:, i, tasks:] * x_NSX[:, j, tasks:]
        weight_ET = model.interaction.weight_ET
        logits = logits + (product_NE.sum(1, keepdim=True) if weight_ET is None else product_NE @ weight_ET)
    return logits


@pytest.mark.parametrize("weighted", [None, True, False])
@pytest.mark.parametrize("share", [True, False])
def test_fm_is_the_sum_over_all_pairs(weighted: bool | None, share: bool) -> None:
    model = make("fm", weighted=weighted, share=share)
    assert isinstance(model, FactorizationMachine)
    features = random_inputs(model.schema, num_users=3, num_items=17)
    with torch.no_grad():
        model.bias_T.copy_(torch.tensor([0.3, -0.2]))
        printed = model.bias_T + linear_and_pairs(model, features)
        torch.testing.assert_close(model(features), printed, atol=1e-5, rtol=1e-5)


def test_deepfm_is_fm_plus_the_network_over_the_same_factors() -> None:
    model = make("deepfm", hidden=(20, 10))
    assert isinstance(model, DeepFM)
    features = random_inputs(model.schema, num_users=3, num_items=17)
    with torch.no_grad():
        user_RSX, item_NSX = model.embedding(features)
        x_NI = join_sides(user_RSX, item_NSX, features[ROW])[:, :, model.num_tasks :].flatten(1)
        first = model.deep.first
        assert first.bias_O is not None
        deep_N = model.deep.tower(torch.relu(x_NI @ first.weight_IO + first.bias_O))
        printed = linear_and_pairs(model, features) + model.head(deep_N)
        torch.testing.assert_close(model(features), printed, atol=1e-5, rtol=1e-5)


def test_one_task_has_the_papers_machine_and_several_a_weight_a_factor() -> None:
    one, two = (make("fm", categorical_schema(2, 2, num_tasks=tasks)) for tasks in (1, 2))
    assert isinstance(one, FactorizationMachine)
    assert isinstance(two, FactorizationMachine)
    assert one.interaction.weight_ET is None
    assert two.interaction.weight_ET is not None
    assert torch.equal(two.interaction.weight_ET, torch.ones(10, 2))


def test_weights_start_at_zero_and_factors_do_not() -> None:
    torch.manual_seed(0)
    for model in (
        FactorizationMachine(mixed_schema(), FMConfig()),
        DeepFM(mixed_schema(), DeepFMConfig()),
    ):
        weight = model.embedding.table.weight
        assert weight[:, : model.num_tasks].abs().max() == 0
        assert weight[:, model.num_tasks :].std().item() == pytest.approx(0.01, rel=0.1)


def test_the_interaction_is_homogeneous_of_degree_two_and_blind_to_a_lone_slot() -> None:
    user, item, row = torch.randn(2, 3, 5), torch.randn(7, 4, 5), torch.arange(7) % 2
    found = pairwise_products(user, item, row)
    torch.testing.assert_close(pairwise_products(3 * user, 3 * item, row), 9 * found, rtol=1e-4, atol=1e-4)
    alone = pairwise_products(user[:, :1], torch.zeros_like(item), row)
    torch.testing.assert_close(alone, torch.zeros_like(alone))


def test_sizes_are_those_of_the_equations() -> None:
    schema = categorical_schema(3, 4)  # 7 tables of 7 rows, one task
    rows, k, flat = 49, 10, 70
    network = flat * 20 + 20 + 20 * 8 + 8 + 8 + 1

    def count(model: Model) -> int:
        return sum(p.numel() for p in model.parameters())

    assert count(make("fm", schema)) == rows * (1 + k) + 1
    assert count(make("deepfm", schema, hidden=(20, 8))) == rows * (1 + k) + network
    assert count(make("dnn", schema, hidden=(20, 8), embedding_width=k)) == rows * k + network


@pytest.mark.parametrize("name", BUILDERS)
def test_a_user_row_shared_by_candidates_equals_one_row_each(name: str) -> None:
    model = make(name)
    features = random_inputs(model.schema, num_users=2, num_items=11)
    with torch.no_grad():
        torch.testing.assert_close(model(features), model(tiled(features)), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", BUILDERS)
def test_every_parameter_learns(name: str) -> None:
    model = make(name).train()
    model(random_inputs(model.schema, num_users=8, num_items=64)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("name", ["dnn", "deepfm"])
def test_a_network_without_layers_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match="hidden"):
        make(name, hidden=())
