from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rankd_contract.signature import ROW, slot_names
from rankd_training.models.armnet import ARMNet, ARMNetConfig
from rankd_training.models.armnet_reading import cross_features, field_importance, field_usage
from tests.training.fields import categorical_schema, crossed_schema, mixed_schema, random_inputs

PLANTED = ("u1", "i2")
FIRST = 2  # the first id of a field's own values


def planted(num_rows: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Eight fields of two values; the label is whether u1 and i2 both have their first."""
    generator = torch.Generator().manual_seed(seed)
    user_NS, item_NS = (torch.randint(2, 4, (num_rows, 4), generator=generator).int() for _ in range(2))
    features = {"in_user_ids": user_NS, "in_item_ids": item_NS, ROW: torch.arange(num_rows)}
    return features, (user_NS[:, 1] == FIRST) & (item_NS[:, 2] == FIRST)


@pytest.fixture(scope="module", params=[1.5, 2.0])
def taught(request: pytest.FixtureRequest) -> ARMNet:
    torch.manual_seed(0)
    config = ARMNetConfig(neurons=4, hidden=(8,), alpha=request.param, embedding_std=0.3)
    model = ARMNet(categorical_schema(4, 4), config).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-2, weight_decay=3.0)
    features, label_N = planted(256, seed=0)
    for _ in range(150):
        loss = functional.binary_cross_entropy_with_logits(model(features)[:, 0], label_N.float())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimiser.step()
    with torch.no_grad():
        for _ in range(50):  # so few steps leave the norms' running statistics behind the weights
            model(features)
    return model.eval()


def test_a_planted_interaction_is_learned_and_its_fields_are_the_important_ones(taught: ARMNet) -> None:
    features, label_N = planted(500, seed=1)
    with torch.no_grad():
        right_N = (taught(features)[:, 0] > 0) == label_N
    assert right_N.float().mean() > 0.98
    for shares in (field_importance(taught), field_usage(taught, features)):
        assert set(list(shares)[:2]) == set(PLANTED)
        assert sum(shares.values()) == pytest.approx(1)


def test_single_scores_are_made_mostly_of_its_fields(taught: ARMNet) -> None:
    features, _ = planted(200, seed=1)
    mostly = 0
    for crosses in cross_features(taught, features):
        amounts: dict[str, float] = {}
        for cross in crosses:
            for name, weight in zip(cross.fields, cross.weights, strict=True):
                amounts[name] = amounts.get(name, 0.0) + weight
        mostly += set(sorted(amounts, key=lambda name: -amounts[name])[:2]) == set(PLANTED)
    assert mostly > 190


def test_each_score_names_the_fields_that_its_own_values_called_for() -> None:
    model = ARMNet(categorical_schema(4, 4), ARMNetConfig(neurons=2, alpha=2.0)).eval()
    embedding, neurons = model.embedding, model.neurons
    with torch.no_grad():
        embedding.table.weight.zero_()
        for name in PLANTED:
            embedding.table.weight[embedding.rows_of(name).start + FIRST, 0] = 1.0
        for weight in (neurons.key_KED, neurons.query_KOD):
            nn.init.constant_(weight, 2.0)
        neurons.value_KOS.copy_(torch.tensor([[[0.5] * 8, [-0.25] * 8]]))
    features, _ = planted(50, seed=2)
    seen = set()
    for n, (cross,) in enumerate(cross_features(model, features)):
        first = (features["in_user_ids"][n, 1] == FIRST, features["in_item_ids"][n, 2] == FIRST)
        called = tuple(name for name, here in zip(PLANTED, first, strict=True) if here)
        everything = tuple(f"u{i}" for i in range(4)) + tuple(f"i{i}" for i in range(4))
        assert cross.fields == (called or everything)
        assert cross.num_neurons == 2
        assert cross.weights == pytest.approx([0.75 / len(cross.fields)] * len(cross.fields))
        seen.add(called)
    assert len(seen) == 4


def test_crosses_account_for_every_neuron_and_all_its_weight() -> None:
    torch.manual_seed(0)
    model = ARMNet(mixed_schema(), ARMNetConfig(neurons=12, embedding_std=2.0)).eval()
    features = random_inputs(model.schema, num_users=2, num_items=5)
    names = ["user_id", "income", "recent", "age", "hour", "item_id", "tags", "price", "weight"]
    weight_NSO = model.field_weights(features).detach().abs()
    found = cross_features(model, features)
    assert len(found) == 5
    for crosses, weight_SO in zip(found, weight_NSO, strict=True):
        assert sum(cross.num_neurons for cross in crosses) == 12
        assert len({cross.fields for cross in crosses}) == len(crosses)
        assert [c.num_neurons for c in crosses] == sorted((c.num_neurons for c in crosses), reverse=True)
        for slot, name in enumerate(names):
            total = sum(w for c in crosses for f, w in zip(c.fields, c.weights, strict=True) if f == name)
            assert total == pytest.approx(weight_SO[slot].sum().item(), abs=1e-5)


def test_importance_is_the_sum_of_what_neurons_are_willing_to_take() -> None:
    model = ARMNet(mixed_schema(), ARMNetConfig(heads=2, neurons=3))
    with torch.no_grad():
        model.neurons.value_KOS.zero_()
        model.neurons.value_KOS[:, :, 7] = -3.0
        model.neurons.value_KOS[0, 0, 2] = 2.0
    found = field_importance(model)
    assert list(found)[:2] == ["price", "recent"]
    assert found["price"] == pytest.approx(18 / 20)
    assert found["recent"] == pytest.approx(2 / 20)


def test_with_softmax_every_neuron_takes_every_field() -> None:
    torch.manual_seed(0)
    model = ARMNet(mixed_schema(), ARMNetConfig(alpha=1.0, neurons=5)).eval()
    for crosses in cross_features(model, random_inputs(model.schema, num_users=1, num_items=3)):
        assert [(len(cross.fields), cross.num_neurons) for cross in crosses] == [(9, 5)]


def test_a_cross_of_the_schema_is_read_under_its_own_name() -> None:
    schema = crossed_schema()
    torch.manual_seed(0)
    model = ARMNet(schema, ARMNetConfig(neurons=4, hidden=(8,), embedding_std=0.5)).eval()
    with torch.no_grad():
        model.neurons.value_KOS.zero_()
        slot = [*slot_names(schema)[0], *slot_names(schema)[1]].index("user_item")
        model.neurons.value_KOS[:, :, slot] = 1.0
    assert next(iter(field_importance(model))) == "user_item"
    usage = field_usage(model, random_inputs(schema, 2, 50))
    assert usage["user_item"] == pytest.approx(1)
    assert set(usage) == {*schema.fields, *(cross.name for cross in schema.crosses)}
