"""The search memorises the pair that only memory can tell; trained again with it, the model knows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankd_training.errors import SettingError
from rankd_training.models.optinter import OptInter
from rankd_training.recipes.optinter import search_and_train
from rankd_training.runs import checkpoint
from rankd_training.settings import TrainSettings

SCHEMA = """
rankd_schema: 1
name: crosses
views:
  - name: user
    entity: user
    key: u
    fields:
      - {name: city, kind: categorical, dtype: int64, hash: 500}
      - {name: age, kind: categorical, dtype: int64, hash: 50}
  - name: item
    entity: item
    key: i
    fields:
      - {name: shop, kind: categorical, dtype: int64, hash: 500}
      - {name: kind, kind: categorical, dtype: int64, hash: 50}
tasks: [{name: click}]
"""


def test_a_planted_cross_is_found_and_kept(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    city_n, shop_n = generator.integers(30, size=(2, 30_000))
    likes = generator.random((30, 30)) < 0.5  # a coin for every city and shop: nothing to factorise
    click_n = likes[city_n, shop_n] ^ (generator.random(30_000) < 0.05)
    columns = {
        "u": city_n,
        "city": city_n,
        "age": generator.integers(9, size=30_000),
        "i": shop_n,
        "shop": shop_n,
        "kind": generator.integers(9, size=30_000),
        "click": click_n,
        "split": np.resize(["train"] * 4 + ["valid", "test"], 30_000)[generator.permutation(30_000)],
    }
    pq.write_table(pa.table(columns), tmp_path / "examples.parquet")
    (tmp_path / "schema.yaml").write_text(SCHEMA, encoding="utf-8")
    settings = TrainSettings(
        tmp_path / "examples.parquet",
        tmp_path / "schema.yaml",
        tmp_path / "run",
        model="optinter",
        model_config={"hidden": [32], "embedding_width": 4, "pair_width": 4, "embedding_std": 0.05},
        epochs=5,
        batch_size=512,
        learning_rate=1e-2,
        seed=0,
    )
    searched, chosen = search_and_train(settings)
    model = checkpoint.load(searched.folder)
    assert isinstance(model, OptInter)
    assert "city*shop=memorise" in model.chosen()
    retrained = checkpoint.load(chosen.folder)
    assert isinstance(retrained, OptInter)
    assert retrained.config.methods == model.chosen()
    assert (chosen.metrics["test"]["click"].auc or 0) > 0.9


def test_only_a_search_can_be_searched(tmp_path: Path) -> None:
    given: list[tuple[str, dict[str, Any]]] = [("mlcc", {}), ("optinter", {"methods": []})]
    for model, config in given:
        settings = TrainSettings(tmp_path, tmp_path, tmp_path / "run", model=model, model_config=config)
        with pytest.raises(SettingError, match="without methods"):
            search_and_train(settings)
