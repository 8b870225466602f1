"""Small runs of the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rankd_training.recipes.ctr import RunResult, train
from rankd_training.settings import TrainSettings
from tests.training.tables import write

SMALL = {"embedding_width": 4, "hidden": [16], "dropout": 0.1}


def run(folder: Path, *, progress: Any = None, name: str = "run", **given: Any) -> RunResult:
    if not (folder / "examples.parquet").exists():
        write(folder)
    settings: dict[str, Any] = {"model_config": SMALL, "epochs": 2, "batch_size": 128, **given}
    told = TrainSettings(folder / "examples.parquet", folder / "schema.yaml", folder / name, **settings)
    return train(told, progress=progress) if progress else train(told)
