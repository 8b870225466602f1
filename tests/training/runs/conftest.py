"""A run that tests judge and score with."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankd_training.recipes import ctr
from rankd_training.settings import TrainSettings
from tests.training.tables import write


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    examples, schema = write(folder)
    small = {"embedding_width": 4, "hidden": [8]}
    told = TrainSettings(examples, schema, folder / "run", model_config=small, epochs=3, learning_rate=0.01)
    return ctr.train(told).folder
