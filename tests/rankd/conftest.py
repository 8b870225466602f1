"""A folder that verbs judge."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankd_training.recipes import ctr
from rankd_training.settings import TrainSettings
from tests.training.tables import write

SMALL = {"embedding_width": 4, "hidden": [8]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with examples, their schema, and a run."""
    folder = tmp_path_factory.mktemp("judged")
    examples, schema = write(folder)
    ctr.train(TrainSettings(examples, schema, folder / "run", model_config=SMALL, epochs=2))
    (folder / "settings.yaml").write_text("mlcc: {epochs: 1, model.hidden: [8]}\nlr: {epochs: 1}\n")
    (folder / "space.yaml").write_text(
        "learning_rate: {log: [1e-3, 1e-2]}\nmodel.hidden: {choice: [[8], [4]]}\n"
    )
    return folder
