"""A real run on a small invented data set: seconds to train, complete in every part."""

from __future__ import annotations

from pathlib import Path

from rankd_training.data.catalog import describe
from rankd_training.data.synthetic import SyntheticConfig, write_synthetic
from rankd_training.recipes import ctr
from rankd_training.settings import TrainSettings


def invented_data(folder: Path) -> Path:
    """Write examples, users and items of 60 users and 90 films."""
    write_synthetic(folder, SyntheticConfig(users=60, films=90, ratings=2500, days=90, seed=1))
    return folder


def tiny_run(data: Path, folder: Path, model: str = "mlcc") -> Path:
    """Train one epoch."""
    schema = describe("movielens-synthetic").schema
    settings = TrainSettings(
        data / "examples.parquet", schema, folder, model, epochs=1, batch_size=256, seed=1, threads=1
    )
    return ctr.train(settings).folder
