from __future__ import annotations

from pathlib import Path

import pytest

from rankd_contract.schema_file import load_schema
from rankd_training.config import read_config
from rankd_training.data.catalog import describe
from rankd_training.learning.unknowns import UnknownValues
from rankd_training.models import registry
from rankd_training.presets import preset
from rankd_training.settings import TrainSettings


@pytest.mark.parametrize("model", ["mlcc", "infnet", "dcnv2", "lr"])
@pytest.mark.parametrize("data", ["movielens-100k", "movielens-synthetic"])
def test_every_preset_is_complete_and_builds(data: str, model: str) -> None:
    chosen = preset(data, model)
    assert {"epochs", "batch_size", "learning_rate", "embedding_decay", "unknown_rates"} <= chosen.keys()
    places = {"examples": Path("e"), "schema": Path("s"), "output": Path("o"), "model": model}
    settings = read_config(TrainSettings, {**places, **chosen})
    schema = load_schema(describe(data).schema)
    assert registry.build(model, schema, settings.model_config).schema == schema
    UnknownValues(schema, settings.unknown_rates or {})


@pytest.mark.parametrize("model", [name for name in registry.names() if preset("diabetes130", name)])
def test_every_preset_of_small_data_builds(model: str) -> None:
    places = {"examples": Path("e"), "schema": Path("s"), "output": Path("o"), "model": model}
    settings = read_config(TrainSettings, {**places, **preset("diabetes130", model)})
    schema = load_schema(describe("diabetes130").schema)
    assert registry.build(model, schema, settings.model_config).schema == schema


def test_what_was_never_tried_has_no_preset() -> None:
    assert preset(None, "mlcc") == {}
    assert preset("movielens-100k", "armnet") == {}


def test_a_model_that_is_read_weight_by_weight_takes_larger_steps_on_anything() -> None:
    assert preset(None, "lr")["learning_rate"] > preset(None, "fm")["learning_rate"] > 0.001
    assert preset("census-income", "lr") == preset(None, "lr")


def test_a_preset_can_be_changed_without_changing_the_next_ones() -> None:
    preset("movielens-100k", "mlcc")["epochs"] = 1
    assert preset("movielens-100k", "mlcc")["epochs"] != 1
