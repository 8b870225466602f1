from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rankd_training.config import read_config
from rankd_training.errors import SettingError
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
        ({"model_config": [1]}, "model_config: expected Mapping"),
        ({"group_column": 5}, "expected str or nothing"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        read_config(TrainSettings, {**PLACES, **given})
