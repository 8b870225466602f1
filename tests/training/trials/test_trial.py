from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rankd_training.errors import SettingError, UnknownModel
from rankd_training.measures.metrics import evaluate
from rankd_training.runs.run_folder import read
from rankd_training.settings_file import flat, nested, read_settings_file, write_settings_file
from rankd_training.trials.trial import Source, Trial, TrialResult, check_names
from rankd_training.trials.trial_store import TrialStore
from tests.training.tables import examples_table, with_value, write

SMALL: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 256,
    "model_config": {"embedding_width": 4, "hidden": [8]},
}


@pytest.fixture
def store(tmp_path: Path) -> TrialStore:
    return TrialStore(tmp_path / "trials", Source(*write(tmp_path)))


def written_at(result: TrialResult) -> int:
    return (result.folder / "trial.json").stat().st_mtime_ns


def test_a_finished_trial_is_found_again_and_not_trained_again(store: TrialStore) -> None:
    trial = Trial("mlcc", SMALL, seed=1)
    assert store.find(trial) is None
    first = store.run(trial)
    again = TrialStore(store.root, store.source).run(Trial("mlcc", dict(SMALL), seed=1))
    assert again == first
    assert written_at(again) == written_at(first)
    for split, score_NT in first.scores().items():
        np.testing.assert_array_equal(again.scores()[split], score_NT)


def test_two_who_want_the_same_trial_train_it_once(store: TrialStore) -> None:
    """They hold a lock against each other, as two processes do: it is on the file, not on the store."""
    trial, found = Trial("lr", {"epochs": 1}, seed=1), list[TrialResult]()
    others = [
        threading.Thread(target=lambda: found.append(TrialStore(store.root, store.source).run(trial)))
        for _ in range(2)
    ]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert len(found) == 2
    # What a trial took is measured as it is trained, so equal results are of one training.
    assert found[0] == found[1]


def test_its_metrics_are_those_of_its_scores(store: TrialStore) -> None:
    result = store.run(Trial("mlcc", SMALL, seed=1))
    examples = store.source.load()
    assert list(result.scores()) == ["test", "valid"]
    for split, score_NT in result.scores().items():
        rows = examples.rows[split]
        found = evaluate(examples.label_nT[rows, 0], score_NT[:, 0], examples.group_n[rows])
        assert found.log_loss == pytest.approx(result.metrics[split]["click"].log_loss, abs=1e-6)
    assert result.mean("valid", "auc") == pytest.approx(
        np.mean([found.auc for found in result.metrics["valid"].values()])
    )


def test_optinter_is_judged_as_it_is_trained_after_its_search(store: TrialStore) -> None:
    small = {**SMALL, "model_config": {**SMALL["model_config"], "pair_width": 4, "cross_rows": 50}}
    result = store.run(Trial("optinter", small, seed=1))
    (searched, trained) = (read(result.folder / name)[0] for name in ("run-search", "run"))
    assert "methods" not in searched.settings["model_config"]
    assert isinstance(trained.settings["model_config"]["methods"], list)
    assert result.parameters == trained.parameters


@pytest.mark.parametrize(
    "other",
    [Trial("lr", {"epochs": 1}, 2), Trial("lr", {"epochs": 2}, 1), Trial("dcnv2", {"epochs": 1}, 1)],
)
def test_another_seed_setting_or_model_is_another_trial(store: TrialStore, other: Trial) -> None:
    store.run(Trial("lr", {"epochs": 1}, 1))
    assert store.find(other) is None


def test_changed_rows_are_another_trial(store: TrialStore, tmp_path: Path) -> None:
    store.run(Trial("lr", {"epochs": 1}, 1))
    write(tmp_path, with_value(examples_table(), "price", 3, 0.5))
    assert TrialStore(store.root, store.source).find(Trial("lr", {"epochs": 1}, 1)) is None


def test_a_trial_that_was_stopped_is_begun_anew(store: TrialStore) -> None:
    trial = Trial("lr", {"epochs": 1}, 1)
    first = store.run(trial)
    expected = first.scores()["test"].copy()
    (first.folder / "trial.json").unlink()
    (first.folder / "scores.safetensors").write_bytes(b"half")
    assert store.find(trial) is None
    np.testing.assert_array_equal(store.run(trial).scores()["test"], expected)


def test_a_trial_that_fails_leaves_nothing_behind(store: TrialStore) -> None:
    with pytest.raises(SettingError):
        store.run(Trial("lr", {"epochs": -1}, 1))
    assert not [path for path in store.root.iterdir() if path.is_dir()]


def test_settings_that_met_the_test_rows_are_counted(store: TrialStore) -> None:
    for epochs, seed in ((1, 1), (1, 2), (2, 1)):
        store.run(Trial("lr", {"epochs": epochs}, seed))
    assert store.settings_judged("lr") == 2
    assert store.settings_judged("mlcc") == 0


def test_wrong_settings_are_named_before_any_training(store: TrialStore) -> None:
    with pytest.raises(SettingError, match="learning_rate"):
        Trial("lr", {"learning_rat": 1.0}, 1).check(store.source)
    with pytest.raises(SettingError, match="heads"):
        Trial("mlcc", {"model_config": {"head": 1}}, 1).check(store.source)
    with pytest.raises(SettingError, match="split decides which rows there are"):
        Trial("gbdt", {"split": "80/10/10"}, 1).check(store.source)
    with pytest.raises(UnknownModel, match="known: mlcc"):
        check_names(["mlcc", "nobody"])


def test_yardsticks_are_trials_like_any_other(store: TrialStore) -> None:
    result = store.run(Trial("gbdt", {}, 1))
    popular = store.run(Trial("popularity", {}, 1))
    assert result.mean("test", "auc") > 0.7 > popular.mean("test", "auc")
    assert list(result.metrics) == ["train", "valid", "test"]
    assert result.scores()["test"].shape == (200, 2)
    assert store.find(Trial("gbdt", {}, 1)) == result


def test_a_settings_file_gives_back_what_was_written(tmp_path: Path) -> None:
    settings: Mapping[str, Any] = {
        "mlcc": {"learning_rate": 0.002, "model_config": {"heads": 2, "hidden": [8, 4]}},
        "lr": {"epochs": 3},
    }
    path = tmp_path / "settings.yaml"
    write_settings_file(path, settings, "found by\nsearch")
    assert path.read_text().startswith("# found by\n# search\n")
    assert yaml.safe_load(path.read_text())["mlcc"]["model.heads"] == 2
    assert read_settings_file(path) == settings


def test_numbers_that_yaml_takes_for_text_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("mlcc: {learning_rate: 1e-3, model.embedding_std: 3e-3, stop_on: auc}")
    assert read_settings_file(path)["mlcc"] == {
        "learning_rate": 1e-3,
        "model_config": {"embedding_std": 3e-3},
        "stop_on": "auc",
    }
    assert flat({"epochs": 1, "model_config": {"heads": 2}}) == {"epochs": 1, "model.heads": 2}
    assert nested({"epochs": 1, "model.heads": 2}) == {"epochs": 1, "model_config": {"heads": 2}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1", "expected a mapping of model names"),
        ("mlcc: 3", "mlcc: expected a mapping of settings, got 3"),
        ("a: [", "line 1"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_settings_file_is_named(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "settings.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingError, match=said):
        read_settings_file(path)
