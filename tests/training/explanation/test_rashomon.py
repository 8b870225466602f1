"""Interactions of functions whose interactions are known on paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rankd_contract.schema import FeatureSchema
from rankd_contract.schema_file import parse_schema
from rankd_contract.signature import ROW
from rankd_training.errors import SettingError
from rankd_training.examples.inputs import RowInputs, field_columns
from rankd_training.explanation.interactions import Effects, log_loss_of
from rankd_training.explanation.masks import masked
from rankd_training.explanation.rashomon import RashomonSettings, field_masks, halo
from rankd_training.layers.embedding import FeatureEmbedding
from rankd_training.models.registry import build, names
from tests.training.fields import crossed_schema, mixed_schema, random_inputs

NUM_ROWS = 8000
SETTINGS = RashomonSettings()


def numbers_schema() -> FeatureSchema:
    def fields(*names: str) -> list[dict[str, object]]:
        return [{"name": name, "kind": "numeric", "dtype": "float32", "default": 0.0} for name in names]

    views = [
        {"name": "user", "entity": "user", "key": "u", "fields": fields("a", "c")},
        {"name": "item", "entity": "item", "key": "i", "fields": fields("b", "d")},
    ]
    return parse_schema(str({"rankd_schema": 1, "name": "numbers", "views": views, "tasks": [{"name": "y"}]}))


class Planted(nn.Module):
    """y = a b + c + d, exactly."""

    def __init__(self, schema: FeatureSchema) -> None:
        super().__init__()
        self.embedding = FeatureEmbedding(schema, 1, std=0.0)
        for side in (self.embedding.user_side, self.embedding.item_side):
            assert side.scale_VE is not None
            side.scale_VE.data.fill_(1.0)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        user_RS1, item_NS1 = self.embedding(features)
        user_NS1 = user_RS1.index_select(0, features[ROW])
        logit_N1: Tensor = user_NS1[:, 0] * item_NS1[:, 0] + user_NS1[:, 1] + item_NS1[:, 1]
        return logit_N1


def squared_error(logit_NT: Tensor, label_NT: Tensor) -> Tensor:
    return (logit_NT - label_NT).square().squeeze(1)


@pytest.fixture(scope="module")
def effects() -> Iterator[Effects]:
    """Four independent unit normals; y has noise of variance 1, so the planted model's loss is 1."""
    schema = numbers_schema()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(NUM_ROWS, 4, generator=generator)
    # Exactly uncorrelated and of unit variance, so that paper and sample agree closely.
    centred = drawn - drawn.mean(0)
    whole = centred @ torch.linalg.inv(torch.linalg.cholesky(centred.T @ centred / NUM_ROWS)).T
    features = {"in_user_values": whole[:, :2].contiguous(), "in_item_values": whole[:, 2:].contiguous()}
    a, c, b, d = whole.T
    noise = torch.randn(NUM_ROWS, generator=generator)
    label_N1 = (a * b + c + d + noise / noise.std()).unsqueeze(1)
    model = Planted(schema).eval()
    inputs = RowInputs(features, field_columns(schema))
    with masked(model, schema) as masks:
        yield Effects(model, masks, inputs, label_N1, loss=squared_error)


def test_effects_are_those_of_the_paper_and_pencil(effects: Effects) -> None:
    assert effects.loss({}) == pytest.approx(1, abs=0.02)
    for field in "abcd":  # E (x' - x)^2 = 2, times E of the partner's square
        assert effects.phi({}, field).value == pytest.approx(2, abs=0.15)
    assert effects.phi({}, "a", "b").value == pytest.approx(2, abs=0.15)
    assert effects.phi({}, "c", "d").value == pytest.approx(4, abs=0.15)


def test_only_the_planted_pair_interacts(effects: Effects) -> None:
    found = {
        (one, other): effects.interaction({}, one, other)
        for one, other in ("ab", "ac", "ad", "bc", "bd", "cd")
    }
    assert found["a", "b"].value == pytest.approx(-2, abs=0.15)
    assert all(abs(found[pair].value) < 0.1 for pair in found if pair != ("a", "b"))
    assert all(abs(found[pair].value) < 4 * found[pair].error + 0.03 for pair in found if pair != ("a", "b"))


def test_masks_reach_the_boundary_that_is_known(effects: Effects) -> None:
    # The loss of a field's mask m is 1 + (m - 1)^2, so at a share of epsilon m = 1 ± sqrt(share epsilon).
    expected = np.sqrt(np.array(SETTINGS.fractions) * SETTINGS.epsilon)
    for field in ("a", "c"):
        found = field_masks(effects, field, SETTINGS)
        np.testing.assert_allclose(np.array(found.up[1:]) - 1, expected[1:], atol=0.04)
        np.testing.assert_allclose(1 - np.array(found.down[1:]), expected[1:], atol=0.04)
        for mask in (found.up[-1], found.down[-1]):
            loss = effects.loss({field: mask}) / effects.loss({}) - 1
            assert loss <= SETTINGS.epsilon
            assert loss == pytest.approx(SETTINGS.epsilon, rel=0.01)  # not merely inside: on the boundary


def test_every_model_of_a_halo_is_in_the_set_and_its_interaction_is_known(effects: Effects) -> None:
    one, other = (field_masks(effects, field, SETTINGS) for field in "ab")
    points = halo(effects, one, other, SETTINGS)
    assert len(points) == 16
    for point in points:
        assert point.loss <= (1 + SETTINGS.epsilon) * effects.loss({}) * (1 + 1e-9)
        together = point.mask["a"] * point.mask["b"]
        assert point.interaction.value == pytest.approx(-2 * together, rel=0.08)
        assert point.phi[0].value == pytest.approx(2 * together, rel=0.08)
    corners = [points[k] for k in (0, 4, 8, 12)]
    # The partner's share is 0 there, which is a mask close to 1: the sample's own best.
    assert [p.mask["a"] for p in corners[::2]] == pytest.approx([one.up[-1], one.down[-1]], abs=0.06)
    assert [p.mask["b"] for p in corners[1::2]] == pytest.approx([other.up[-1], other.down[-1]], abs=0.06)


def test_additive_fields_stay_apart_in_every_model_of_the_set(effects: Effects) -> None:
    one, other = (field_masks(effects, field, SETTINGS) for field in "cd")
    for point in halo(effects, one, other, SETTINGS):
        assert abs(point.interaction.value) < 0.1


def test_a_field_that_counts_for_nothing_stops_at_the_farthest_mask(effects: Effects) -> None:
    settings = RashomonSettings(farthest=1.5)

    # Where a is gone, b changes nothing.
    class Blind(Effects):
        def __init__(self) -> None:
            self.inner = effects

        def loss(self, mask: Mapping[str, float]) -> float:
            return self.inner.loss({**mask, "a": 0.0})

    found = field_masks(Blind(), "b", settings)
    assert found.up[-1] == pytest.approx(2.5)
    assert found.down[-1] == pytest.approx(-0.5)


@pytest.mark.parametrize("name", names())
def test_every_model_can_be_masked_and_is_left_as_it_was(name: str) -> None:
    schema = mixed_schema()
    torch.manual_seed(0)
    model = build(name, schema, {}).eval()
    for parameter in model.parameters():  # some models begin at zero
        nn.init.normal_(parameter, std=0.3)
    features = random_inputs(schema, 7, 7, seed=1)
    features[ROW] = torch.arange(7)
    with torch.no_grad():
        before = model(features)
        with masked(model, schema) as masks:
            assert torch.equal(model(features), before)
            for field in schema.fields:
                masks.set({field: 3.0})
                assert not torch.equal(model(features), before), field
            masks.set({})
            assert torch.equal(model(features), before)
        assert torch.equal(model(features), before)
    assert isinstance(model.embedding, FeatureEmbedding)


def test_a_field_scaled_to_nothing_is_a_field_that_is_not_read() -> None:
    schema = mixed_schema()
    torch.manual_seed(0)
    model = build("infnet", schema, {}).eval()
    features = random_inputs(schema, 5, 5, seed=1)
    other = {**features, "in_user_ids": features["in_user_ids"].clone()}
    # A history's padding is masked, so what it holds at present positions is what is scaled away.
    column = schema.layout(next(v.entity for v in schema.views)).fields[2]
    assert column.field.name == "recent"
    ids = other["in_user_ids"][:, column.ids]
    other["in_user_ids"][:, column.ids] = torch.where(ids > 0, 3, 0)
    with torch.no_grad(), masked(model, schema) as masks:
        assert not torch.equal(model(features), model(other))
        masks.set({"recent": 0.0})
        torch.testing.assert_close(model(features), model(other))


@pytest.mark.parametrize("name", ["mlcc", "infnet", "dlrm"])
def test_a_field_scaled_to_nothing_is_gone_from_its_crosses_too(name: str) -> None:
    schema = crossed_schema()
    torch.manual_seed(0)
    model = build(name, schema, {"embedding_std": 0.5}).eval()
    features = random_inputs(schema, 5, 5, seed=1)
    other = {**features, "in_context_ids": features["in_context_ids"] % 24 + 1}  # the hour, twice crossed
    with torch.no_grad(), masked(model, schema) as masks:
        assert not torch.equal(model(features), model(other))
        masks.set({"hour": 0.0})
        torch.testing.assert_close(model(features), model(other))


def test_a_plain_number_is_scaled_as_it_enters() -> None:
    schema = mixed_schema()
    torch.manual_seed(0)
    model = build("mlcc", schema, {}).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)  # biases of numbers, too, which are not to be scaled
    features = random_inputs(schema, 5, 5, seed=1)
    name, at = field_columns(schema)["price"]
    doubled = {**features, name: features[name].clone()}
    doubled[name][:, at] *= 2
    with torch.no_grad(), masked(model, schema) as masks:
        expected = model(doubled)
        masks.set({"price": 2.0})
        torch.testing.assert_close(model(features), expected)
    assert not torch.equal(features[name], doubled[name])


def test_unknown_fields_models_without_fields_and_wrong_settings_are_named() -> None:
    schema = numbers_schema()
    with pytest.raises(SettingError, match="Linear has no FeatureEmbedding"), masked(nn.Linear(1, 1), schema):
        pass
    with masked(Planted(schema), schema) as masks, pytest.raises(KeyError, match="e"):
        masks.set({"e": 1.0})
    with pytest.raises(SettingError, match="epsilon"):
        RashomonSettings(epsilon=0)
    with pytest.raises(SettingError, match="fractions"):
        RashomonSettings(fractions=(0.0, 0.3, 1.0))


def test_a_task_of_its_own_or_all_by_weight() -> None:
    schema = mixed_schema()  # click weighs 1, buy 2
    logit_NT, label_NT = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 1.0]])
    click, buy = (float(log_loss_of(schema, task)(logit_NT, label_NT)) for task in ("click", "buy"))
    assert click == pytest.approx(np.log(2))
    assert float(log_loss_of(schema)(logit_NT, label_NT)) == pytest.approx((click + 2 * buy) / 3)
