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
    given: dict[str, Any] = {"batch_size": 100, "epochs": 3, "patience": 1}
    given |= {"stop_on": "user_auc", "embedding_decay": 0.0}
    settings = settings_in(tmp_path, **given)
    assert sized(settings, many(tmp_path, 1)) == settings


def test_a_label_too_rare_for_a_steady_auc_stops_on_log_loss(tmp_path: Path) -> None:
    assert sized(settings_in(tmp_path), many(tmp_path / "few", 1)).stop_on == "log_loss"
    assert sized(settings_in(tmp_path), many(tmp_path / "many", 10)).stop_on == "auc"


def test_embeddings_lose_as_much_an_epoch_however_many_steps_it_has(tmp_path: Path) -> None:
    for times, rates in ((1, {"learning_rate": 0.01}), (10, {"embedding_learning_rate": 0.005})):
        folder = tmp_path / str(times)
        examples = many(folder, times)
        found = sized(settings_in(folder, **rates), examples)
        assert found.embedding_decay is not None
        steps = -(-len(examples.rows["train"]) // found.batch_size)
        rate = found.embedding_learning_rate or found.learning_rate
        assert found.embedding_decay * rate * steps == pytest.approx(0.1)


def test_a_small_table_is_learned_with_nothing_set(tmp_path: Path) -> None:
    write(tmp_path, examples_table())
    result = train(settings_in(tmp_path, model="dnn"))
    assert (result.metrics["test"]["click"].auc or 0.0) > 0.8
    assert result.metrics["test"]["click"].log_loss < 0.5
    assert result.record.settings["batch_size"] == 32, "the record has what was used"
