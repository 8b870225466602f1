"""The search memorises the pair that only memory can tell; with it as a cross, any model knows it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankd_contract.schema_file import load_schema
from rankd_contract.strict_yaml import read_yaml
from rankd_training.errors import RunError, SettingError
from rankd_training.models.optinter import OptInter
from rankd_training.recipes import ctr, optinter
from rankd_training.recipes.chosen_pairs import CROSSED_SCHEMA, PAIRS
from rankd_training.recipes.ctr import RunResult
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
NUM_ROWS, CITIES, SHOPS = 30_000, 100, 60


def settings_for(folder: Path, output: Path, **changes: Any) -> TrainSettings:
    settings = TrainSettings(
        folder / "examples.parquet",
        folder / "schema.yaml",
        output,
        model="optinter",
        model_config={
            "hidden": [32],
            "embedding_width": 4,
            "pair_width": 4,
            "embedding_std": 0.05,
            "cooling": 3e-3,
        },
        epochs=5,
        batch_size=512,
        learning_rate=1e-2,
        seed=0,
    )
    return replace(settings, **changes)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows in which a coin was thrown for every city and shop: nothing to factorise."""
    folder = tmp_path_factory.mktemp("planted")
    generator = np.random.default_rng(0)
    city_n, shop_n = generator.integers(CITIES, size=NUM_ROWS), generator.integers(SHOPS, size=NUM_ROWS)
    likes = generator.random((CITIES, SHOPS)) < 0.5
    columns = {
        "u": city_n,
        "city": city_n,
        "age": generator.integers(9, size=NUM_ROWS),
        "i": shop_n,
        "shop": shop_n,
        "kind": generator.integers(9, size=NUM_ROWS),
        "click": likes[city_n, shop_n] ^ (generator.random(NUM_ROWS) < 0.05),
        "split": np.resize(["train"] * 4 + ["valid", "test"], NUM_ROWS)[generator.permutation(NUM_ROWS)],
    }
    pq.write_table(pa.table(columns), folder / "examples.parquet")
    (folder / "schema.yaml").write_text(SCHEMA, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def runs(planted: Path) -> tuple[RunResult, RunResult]:
    said: list[str] = []
    both = search_and_train(settings_for(planted, planted / "run"), say=said.append)
    assert [line.split(" ", 1)[0] for line in said] == ["first", "then"]
    assert re.search(r"\d pairs memorised \(.*city\*shop", said[1])
    return both


def auc(result: RunResult) -> float:
    return result.metrics["test"]["click"].auc or 0.0


def test_a_planted_cross_is_found_and_kept(runs: tuple[RunResult, RunResult]) -> None:
    searched, chosen = runs
    model = checkpoint.load(searched.folder)
    assert isinstance(model, OptInter)
    assert "city*shop=memorise" in model.chosen()
    retrained = checkpoint.load(chosen.folder)
    assert isinstance(retrained, OptInter)
    assert retrained.config.methods == model.chosen()
    assert auc(chosen) > 0.9


def test_the_run_says_what_each_pair_is_for(runs: tuple[RunResult, RunResult]) -> None:
    _, chosen = runs
    found = read_yaml((chosen.folder / PAIRS).read_text(encoding="utf-8"))
    assert list(found) == ["memorise", "factorise", "naive"]
    assert next(iter(found["memorise"])) == "city*shop", "the surest comes first"
    pairs = {pair: shares for by_pair in found.values() for pair, shares in by_pair.items()}
    assert len(pairs) == 6
    for shares in pairs.values():
        assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    chosen_methods = [f"{pair}={method}" for method in ("memorise", "factorise") for pair in found[method]]
    assert sorted(chosen.record.settings["model_config"]["methods"]) == sorted(chosen_methods)


@pytest.mark.parametrize("model", ["mlcc", "dcnv2"])
def test_with_the_memorised_pair_as_a_cross_any_model_knows_what_without_it_none_does(
    model: str, runs: tuple[RunResult, RunResult], planted: Path, tmp_path: Path
) -> None:
    crossed = runs[1].folder / CROSSED_SCHEMA
    assert load_schema(crossed).crosses[0].of == ("city", "shop")
    assert len(load_schema(crossed).crosses) < 4, "of four memorised pairs, those that are sure"
    plain = settings_for(planted, tmp_path / "plain", model=model, model_config={}, epochs=3)
    without = ctr.train(plain)
    with_it = ctr.train(replace(plain, schema=crossed, output=tmp_path / "crossed"))
    assert auc(without) < 0.7
    assert auc(with_it) > 0.85


def test_only_a_search_can_be_searched(tmp_path: Path) -> None:
    given: list[tuple[str, dict[str, Any]]] = [("mlcc", {}), ("optinter", {"methods": []})]
    for model, config in given:
        settings = TrainSettings(tmp_path, tmp_path, tmp_path / "run", model=model, model_config=config)
        with pytest.raises(SettingError, match="without methods"):
            search_and_train(settings)


class _Killed(Exception):
    """Stands for the end of the process: what is not an error of training's own leaves its state behind."""


class _KillsIn:
    """Ends a training in the second epoch of its first or second run."""

    def __init__(self, run: int) -> None:
        self.runs_left = run

    def rows_read(self, done: int, total: int) -> None:
        pass

    def run_started(
        self, *, model: str, parameters: int, stop_on: str, epochs: int, steps_per_epoch: int
    ) -> None:
        self.runs_left -= 1

    def epoch_started(self, epoch: int) -> None:
        if epoch == 2 and not self.runs_left:
            raise _Killed

    def step(self, step: int, loss: float, rows_per_s: float) -> None:
        pass

    def epoch_ended(
        self, epoch: int, loss: float, valid_auc: Mapping[str, float], *, score: float, best: bool
    ) -> None:
        pass


@pytest.mark.parametrize("run", [1, 2], ids=["while searching", "after the search"])
def test_a_killed_search_goes_on_and_ends_as_if_it_had_not_been(
    run: int, runs: tuple[RunResult, RunResult], planted: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    with pytest.raises(_Killed):
        search_and_train(settings_for(planted, output), progress=_KillsIn(run))
    assert not output.exists()
    result = optinter.resume(output)
    assert result.folder == output
    assert result.metrics == runs[1].metrics
    for name in (PAIRS, CROSSED_SCHEMA):
        assert (output / name).read_bytes() == (runs[1].folder / name).read_bytes()


def test_a_search_whose_training_was_not_begun_is_not_lost(
    runs: tuple[RunResult, RunResult], tmp_path: Path
) -> None:
    shutil.copytree(runs[0].folder, tmp_path / "run-search")
    with pytest.raises(RunError, match="the search before it is done") as refused:
        optinter.resume(tmp_path / "run")
    told = str(refused.value).split("--set 'model.methods=")[1].rstrip("'")
    assert read_yaml(told) == runs[1].record.settings["model_config"]["methods"]


def test_resuming_goes_on_with_any_other_run_too(planted: Path, tmp_path: Path) -> None:
    settings = settings_for(planted, tmp_path / "run", model="lr", model_config={})
    with pytest.raises(_Killed):
        ctr.train(settings, progress=_KillsIn(1))
    assert optinter.resume(tmp_path / "run").record.model == "lr"
    with pytest.raises(RunError, match="nothing to go on with"):
        optinter.resume(tmp_path / "run")
