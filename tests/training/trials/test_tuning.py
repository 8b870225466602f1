from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from rankd_training.errors import ExamplesError, RunError, SettingError
from rankd_training.runs.held import held
from rankd_training.trials.search_space import read_space
from rankd_training.trials.trial import Source, Trial
from rankd_training.trials.trial_store import TrialStore
from rankd_training.trials.tuning import Study
from rankd_training.trials.withheld import without_test
from tests.training.tables import examples_table, with_column, write

BASE: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 128,
    "model_config": {"embedding_width": 4, "hidden": [8], "dropout": 0.0},
}
SPACE = "learning_rate: {log: [0.00001, 0.02]}\nmodel.embedding_std: {choice: [0.01, 0.3]}\n"


def study(folder: Path, *, space: str = SPACE, base: dict[str, Any] | None = None, **given: Any) -> Study:
    if not (folder / "examples.parquet").exists():
        write(folder)
    (folder / "space.yaml").write_text(space)
    return Study(
        folder / "tune",
        "planted",
        Source(folder / "examples.parquet", folder / "schema.yaml"),
        model="mlcc",
        space=read_space(folder / "space.yaml", "mlcc"),
        base=BASE if base is None else base,
        **given,
    )


def frame(path: Path) -> dict[str, list[Any]]:
    """Rows by split, the split itself left out."""
    rows: dict[str, list[Any]] = {"train": [], "valid": [], "test": []}
    for row in pq.read_table(path).to_pylist():
        rows[row.pop("split")].append(row)
    return rows


def test_a_search_finds_what_learns_and_says_how_to_train_it(tmp_path: Path) -> None:
    searched = study(tmp_path)
    searched.run(12)
    best, tried = searched.best(), searched.tried()
    assert len(tried) == 12
    assert best.value == max(one.value or 0 for one in tried)
    assert best.values["learning_rate"] > 1e-3  # the others hardly move in three epochs
    settings = searched.settings(best)
    assert settings["epochs"] == 3
    assert settings["model_config"] == {
        **BASE["model_config"],
        "embedding_std": best.values["model.embedding_std"],
    }
    # Trained on the whole file with the same seed it is the same model.
    whole = TrialStore(tmp_path / "whole", Source(tmp_path / "examples.parquet", tmp_path / "schema.yaml"))
    assert whole.run(Trial("mlcc", settings, 1)).mean("valid", "auc") == pytest.approx(best.value, abs=1e-6)


def test_the_first_trial_is_the_settings_at_hand(tmp_path: Path) -> None:
    searched = study(tmp_path)
    searched.run(1)
    (first,) = searched.tried()
    assert first.values == {"learning_rate": 1e-3, "model.embedding_std": 0.01}


def test_a_study_goes_on_where_it_was_and_does_nothing_twice(tmp_path: Path) -> None:
    study(tmp_path).run(3)
    heard: list[int] = []
    searched = study(tmp_path)
    before = searched.tried()
    searched.run(3, begun=lambda number, _: heard.append(number))
    assert heard == []
    searched.run(5, begun=lambda number, _: heard.append(number))
    assert heard == [3, 4]
    after = searched.tried()
    assert after[:3] == before
    assert len({str(one.values) for one in after}) == 5


def test_a_stopped_trial_does_not_count(tmp_path: Path) -> None:
    searched = study(tmp_path)

    def stop(number: int, _: Any) -> None:
        if number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searched.run(3, begun=stop)
    assert len(searched.tried()) == 1
    assert not (searched.folder / "work").exists()
    again = study(tmp_path)
    again.run(3)
    assert len(again.tried()) == 3


def test_another_space_measure_or_file_is_another_study(tmp_path: Path) -> None:
    one = study(tmp_path)
    assert study(tmp_path).folder == one.folder
    assert study(tmp_path, space="learning_rate: {log: [0.001, 0.02]}").folder != one.folder
    assert study(tmp_path, measure="log_loss").folder != one.folder
    assert study(tmp_path, seeds=(1, 2)).folder != one.folder
    write(tmp_path, examples_table(seed=1))
    assert study(tmp_path).folder != one.folder


def test_log_loss_is_made_small(tmp_path: Path) -> None:
    searched = study(tmp_path, measure="log_loss", seeds=(1, 2), base={**BASE, "epochs": 1})
    searched.run(3)
    assert searched.best().value == min(one.value or 9 for one in searched.tried())


def test_a_trial_that_diverges_is_kept_as_such_and_the_search_goes_on(tmp_path: Path) -> None:
    searched = study(tmp_path, space="learning_rate: {choice: [1.0e30, 0.01]}")
    searched.run(6)
    states = {one.values["learning_rate"]: one.state for one in searched.tried()}
    assert states == {1e30: "diverged", 0.01: "done"}
    assert searched.best().values == {"learning_rate": 0.01}


def test_values_that_a_model_refuses_are_named(tmp_path: Path) -> None:
    searched = study(tmp_path, space="model.heads: {choice: [0]}")
    with pytest.raises(SettingError, match=r"trial 0 with .*model.heads.*: .*heads"):
        searched.run(1)


def test_trials_never_see_a_test_row(tmp_path: Path) -> None:
    source = Source(*write(tmp_path))
    kept = without_test(source, tmp_path / "kept.parquet")
    whole, left = (frame(path) for path in (source.examples, kept.examples))
    assert kept.splits == ("train", "valid")
    for split, count in (("train", 800), ("valid", 200)):
        assert left[split] == whole[split]
        assert len(left[split]) == count
    (stand_in,) = left["test"]
    assert stand_in in whole["valid"]
    result = TrialStore(tmp_path / "trials", kept).run(Trial("lr", {"epochs": 1}, 1))
    assert list(result.metrics) == ["train", "valid"]
    assert list(result.scores()) == ["valid"]
    assert np.isfinite(result.mean("valid", "log_loss"))


def test_rows_that_name_no_split_are_dealt_out_first(tmp_path: Path) -> None:
    examples, schema = write(tmp_path, examples_table().drop(["split"]))
    source = Source(examples, schema, {"split": "60/20/20"})
    kept = without_test(source, tmp_path / "kept.parquet")
    whole, left = source.load(), kept.load()
    assert len(left.rows["test"]) == 1
    for split in ("train", "valid"):
        np.testing.assert_array_equal(left.label_nT[left.rows[split]], whole.label_nT[whole.rows[split]])


def test_a_file_without_validation_rows_is_named(tmp_path: Path) -> None:
    examples, schema = write(tmp_path, with_column(examples_table(), "split", ["train"] * 1200))
    with pytest.raises(ExamplesError, match="'valid'"):
        without_test(Source(examples, schema), tmp_path / "kept.parquet")


def test_two_processes_are_not_at_one_study(tmp_path: Path) -> None:
    searched = study(tmp_path)
    with (
        held(searched.folder / ".lock", "this study"),
        pytest.raises(RunError, match="another process is at this study"),
    ):
        study(tmp_path).run(1)
    searched.run(1)
    assert len(study(tmp_path).tried()) == 1
