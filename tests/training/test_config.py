from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rankd_training.config import read_config
from rankd_training.errors import SettingError
from rankd_training.models.mlcc import MLCCConfig
from rankd_training.models.registry import setting_names
from rankd_training.settings import TrainSettings

PLACES = {"examples": Path("e.parquet"), "schema": Path("s.yaml"), "output": Path("run")}


def test_settings_of_a_run_read_from_a_mapping() -> None:
    given: dict[str, Any] = {**PLACES, "epochs": 3, "learning_rate": 1, "model_config": {"heads": 2}}
    assert read_config(TrainSettings, given) == TrainSettings(**given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epoch": 3}, "no setting 'epoch'; did you mean 'epochs'"),
        ({"epochs": "three"}, "TrainSettings.epochs: expected int, got 'three'"),
        ({"model_config": [1]}, "model_config: expected a mapping, got"),
        (
            {"unknown_rates": 0.5},
            r"unknown_rates: expected a mapping, as {user_id: 0.5} or nothing \(null\), got 0.5",
        ),
        ({"funnel": "clicked"}, "funnel: expected a list of str, got 'clicked'"),
        ({"group_column": 5}, "expected str or nothing"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        read_config(TrainSettings, {**PLACES, **given})


def test_a_setting_of_the_models_is_named_as_such() -> None:
    given = {**PLACES, "heads": 2}
    with pytest.raises(SettingError, match=r"no setting 'heads'; did you mean 'model\.heads'\?"):
        read_config(TrainSettings, given, elsewhere=setting_names("mlcc"))


def test_how_a_list_is_written_is_shown() -> None:
    with pytest.raises(SettingError, match=r"hidden: expected a list of int, as \[64, 32\], got '64,32'"):
        read_config(MLCCConfig, {"hidden": "64,32"})
