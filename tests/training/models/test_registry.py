from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import torch

from rankd_contract.schema_file import parse_schema
from rankd_training.errors import SettingError, UnknownModel
from rankd_training.models import registry
from rankd_training.models.dcnv2 import DCNv2Config
from rankd_training.models.mlcc import MLCC, MLCCConfig
from tests.training.fields import (
    categorical_schema,
    crossed_schema,
    mixed_schema,
    random_inputs,
    table_schema,
    tiled,
)

ONLY_NUMBERS = """
rankd_schema: 1
name: numbers
views:
  - name: user
    entity: user
    key: u
    fields: [{name: age, kind: numeric, dtype: float32, default: 0.0}]
  - name: item
    entity: item
    key: i
    fields: [{name: price, kind: numeric, dtype: float32, default: 0.0}]
tasks: [{name: click}]
"""


def test_the_models_are_the_ones_people_know() -> None:
    assert registry.names()[:6] == ["mlcc", "infnet", "armnet", "dcnv2", "wukong", "dlrm"]
    assert registry.names()[6:] == ["deepfm", "mmoe", "ple", "optinter", "dnn", "fm", "lr"]


@pytest.mark.parametrize("name", registry.names())
def test_a_model_is_built_from_a_mapping_or_its_config(name: str) -> None:
    config = registry.config_type(name)()
    for given in (config, asdict(config), {}):
        model = registry.build(name, mixed_schema(), given)
        assert model.config == config
        assert model.schema == mixed_schema()
        assert registry.name_of(model) == name


@pytest.mark.parametrize("name", registry.names())
@pytest.mark.parametrize(("num_users", "num_items"), [(1, 1), (1, 5), (3, 2)])
def test_every_model_gives_a_logit_a_candidate_and_task(name: str, num_users: int, num_items: int) -> None:
    for schema in (
        mixed_schema(),
        categorical_schema(1, 1),
        categorical_schema(2, 3, num_tasks=3),
        parse_schema(ONLY_NUMBERS),
        table_schema(),
    ):
        model = registry.build(name, schema, {}).eval()
        with torch.no_grad():
            logits = model(random_inputs(schema, num_users, num_items))
        assert logits.shape == (num_items, len(schema.tasks))
        assert logits.isfinite().all()


@pytest.mark.parametrize("name", registry.names())
def test_every_model_sees_the_crosses_of_a_schema(name: str) -> None:
    schema = crossed_schema()
    torch.manual_seed(0)
    std = 1.0 if name == "ple" else 0.5
    model = registry.build(name, schema, {"embedding_std": std}).eval()
    features = random_inputs(schema, num_users=2, num_items=11)
    with torch.no_grad():
        logits = model(features)
        torch.testing.assert_close(logits, model(tiled(features)), atol=1e-5, rtol=1e-5)
        for cross in schema.crosses:
            rows = model.embedding.table.weight[model.embedding.rows_of(cross.name)]
            kept = rows.clone()
            rows.zero_()
            assert (model(features) - logits).abs().max() > 1e-3, cross.name
            rows.copy_(kept)


@pytest.mark.parametrize("name", registry.names())
def test_no_input_shares_its_name_with_a_weight(name: str) -> None:
    # The exporter would let the input overwrite the weight without a word.
    model = registry.build(name, mixed_schema(), {})
    weights = {part for weight in model.state_dict() for part in weight.split(".")}
    assert not [weight for weight in weights if weight.startswith(("in_", "out_"))]


def test_lists_from_json_become_the_configs_tuples() -> None:
    model = registry.build("mlcc", mixed_schema(), {"hidden": [8, 4], "embedding_std": None, "dropout": 0})
    assert isinstance(model, MLCC)
    assert model.config == MLCCConfig(hidden=(8, 4), embedding_std=None, dropout=0)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"head": 3}, "no setting 'head'; did you mean 'heads'"),
        ({"zzz": 3}, "known: embedding_width"),
        ({"heads": "four"}, "MLCCConfig.heads: expected int, got 'four'"),
        ({"heads": True}, "expected int, got True"),
        ({"keep": [0, "a"]}, "keep: expected a list of int"),
        ({"embedding_std": "small"}, "expected float or nothing"),
        ({"cross_activation": "gelu"}, "expected one of none, relu, tanh, sigmoid"),
        (DCNv2Config(), "model 'mlcc' takes MLCCConfig, got DCNv2Config"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(config: Any, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        registry.build("mlcc", mixed_schema(), config)


def test_an_unknown_model_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        UnknownModel, match=rf"'din'; did you mean 'dnn'\? known: {', '.join(registry.names())}"
    ):
        registry.build("din", mixed_schema(), {})


@pytest.mark.parametrize("name", registry.names())
def test_a_models_output_biases_are_what_every_candidates_logits_have_in_common(name: str) -> None:
    torch.manual_seed(0)
    for schema in (mixed_schema(), categorical_schema(2, 3, num_tasks=3), table_schema()):
        model = registry.build(name, schema, {}).eval()
        biases, features = model.output_biases(), random_inputs(schema, 2, 5)
        with torch.no_grad():
            before_NT = model(features)
            for at, bias in enumerate(biases):
                bias.add_(torch.arange(bias.numel()) + at + 1.0)
            moved_NT = model(features) - before_NT
        expected_T = torch.arange(len(schema.tasks)) + 1.0
        torch.testing.assert_close(moved_NT, expected_T.expand_as(moved_NT), atol=1e-4, rtol=0)
    if name == "armnet":
        plus = registry.build(name, mixed_schema(), {"deep_hidden": [8]}).eval()
        assert sum(bias.numel() for bias in plus.output_biases()) == len(plus.schema.tasks)
