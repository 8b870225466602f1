"""What is left to the number of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rankd_contract.schema_file import load_schema
from rankd_training.examples.examples import Examples, examples_of
from rankd_training.recipes.ctr import train
from rankd_training.recipes.sized import sized
from rankd_training.settings import TrainSettings
from tests.training.tables import examples_table, write


def settings_in(folder: Path, **given: Any) -> TrainSettings:
    return TrainSettings(folder / "examples.parquet", folder / "schema.yaml", folder / "run", **given)


def many(folder: Path, times: int) -> Examples:
    """As many times the 800 training rows of `examples_table`."""
    folder.mkdir(exist_ok=True)
    write(folder, pa.concat_tables([examples_table()] * times))
    settings = settings_in(folder)
    wide = settings.schema.read_text(encoding="utf-8").replace("hash: 10}", "hash: 4096}")  # a row a user
    settings.schema.write_text(wide, encoding="utf-8")
    return examples_of(settings, load_schema(settings.schema))


@pytest.mark.parametrize(
    ("times", "batch_size", "epochs", "patience"),
    [(1, 32, 120, 12), (10, 64, 24, 3), (100, 1024, 38, 4), (500, 1024, 10, 2)],
)
def test_few_rows_are_learned_in_small_batches_and_long_enough(
    tmp_path: Path, times: int, batch_size: int, epochs: int, patience: int
) -> None:
    found = sized(settings_in(tmp_path), many(tmp_path, times))
    assert (found.batch_size, found.epochs, found.patience) == (batch_size, epochs, patience)


def test_what_is_given_stays(tmp_path: Path) -> None:
    given: dict[str, Any] = {"batch_size": 100, "epochs": 3, "patience": 1, "unknown_rates": {}}
    given |= {"stop_on": "user_auc", "embedding_decay": 0.0}
    settings = settings_in(tmp_path, **given)
    assert sized(settings, many(tmp_path, 1)) == settings


def test_rates_that_fall_reach_their_end(tmp_path: Path) -> None:
    found = sized(settings_in(tmp_path, schedule="linear"), many(tmp_path, 1))
    assert found.patience == found.epochs == 120


def test_ids_of_few_rows_each_are_hidden_at_times(tmp_path: Path) -> None:
    few, more = many(tmp_path / "few", 1), many(tmp_path / "more", 10)
    assert sized(settings_in(tmp_path), few).unknown_rates == {"user_id": 0.2}, "18 items are no many ids"
    assert sized(settings_in(tmp_path), more).unknown_rates == {}


def test_a_label_too_rare_for_a_steady_auc_stops_on_log_loss(tmp_path: Path) -> None:
    assert sized(settings_in(tmp_path), many(tmp_path / "few", 1)).stop_on == "log_loss"
    assert sized(settings_in(tmp_path), many(tmp_path / "many", 10)).stop_on == "auc"


@pytest.mark.parametrize("optimiser", ["adam", "deferred_adam", "lazy_adam", "rowwise_adagrad"])
@pytest.mark.parametrize("batch_size", [32, 800])
def test_the_decay_that_is_chosen_suits_every_optimiser_and_number_of_steps(
    tmp_path: Path, optimiser: Any, batch_size: int
) -> None:
    write(tmp_path, examples_table())
    told = {"embedding_optimiser": optimiser, "batch_size": batch_size, "embedding_learning_rate": 0.02}
    result = train(settings_in(tmp_path, model="fm", epochs=1, **told))
    steps = -(-800 // batch_size)
    lost = result.record.settings["embedding_decay"] * 0.02 * steps
    assert lost == pytest.approx(0.1 if steps > 5 else 0.02 * steps)


def test_a_small_table_is_learned_with_nothing_set(tmp_path: Path) -> None:
    write(tmp_path, examples_table())
    result = train(settings_in(tmp_path, model="dnn"))
    assert (result.metrics["test"]["click"].auc or 0.0) > 0.8
    assert result.metrics["test"]["click"].log_loss < 0.5
    assert result.record.settings["batch_size"] == 32, "the record has what was used"
