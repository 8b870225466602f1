"""One of several processes that train the runs of `cases.json`, one after the other; `torchrun` starts it."""

from __future__ import annotations

import json
from pathlib import Path

from torch import distributed

from rankd_training.config import read_config
from rankd_training.examples import batches
from rankd_training.recipes import ctr
from rankd_training.settings import TrainSettings


def main() -> None:
    """Train."""
    batches.EVALUATION_ROWS = 33  # 200 validation rows make three processes 3, 3 and 2 batches
    distributed.init_process_group("gloo")
    places = {"examples": Path("examples.parquet"), "schema": Path("schema.yaml")}
    for output, settings in json.loads(Path("cases.json").read_text(encoding="utf-8")).items():
        ctr.train(read_config(TrainSettings, {**settings, **places, "output": Path(output)}))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
