from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from rankd_contract.errors import SchemaError
from rankd_training.errors import Diverged, ExamplesError, RunError, SettingError, UnknownModel
from rankd_training.progress import RichProgress
from rankd_training.recipes.report import render_metrics
from rankd_training.runs import checkpoint
from rankd_training.runs.samples import sample_requests
from tests.training.fields import MIXED, random_inputs
from tests.training.recipes.small_runs import SMALL, run
from tests.training.tables import examples_table, with_column, write


class Recorder:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.rows: list[tuple[int, int]] = []

    def rows_read(self, done: int, total: int) -> None:
        self.rows.append((done, total))

    def run_started(
        self, *, model: str, parameters: int, stop_on: str, epochs: int, steps_per_epoch: int
    ) -> None:
        self.heard.append(("run", model, epochs, steps_per_epoch))

    def epoch_started(self, epoch: int) -> None:
        self.heard.append(("epoch", epoch))

    def step(self, step: int, loss: float, rows_per_s: float) -> None:
        assert loss > 0
        assert rows_per_s > 0
        self.heard.append(("step", step))

    def epoch_ended(
        self, epoch: int, loss: float, valid_auc: Mapping[str, float], *, score: float, best: bool
    ) -> None:
        self.heard.append(("end", epoch, tuple(valid_auc), best))


def test_equal_settings_give_equal_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    run(tmp_path, name="one")
    torch.manual_seed(2)  # what else draws random numbers must not matter
    run(tmp_path, name="two")
    run(tmp_path, name="three", seed=7)
    one, two, three = (load_file(tmp_path / n / "weights.safetensors") for n in ("one", "two", "three"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["embedding.table.weight"], three["embedding.table.weight"])


def test_the_callers_generator_and_threads_are_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(5)
    run(tmp_path, epochs=1, threads=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_a_run_leaves_a_folder_that_export_can_read(tmp_path: Path) -> None:
    result = run(tmp_path)
    folder = tmp_path / "run"
    assert result.folder == folder
    assert {p.name for p in folder.iterdir()} == {
        "weights.safetensors",
        "model.json",
        "schema.yaml",
        "run.json",
        "metrics.json",
        "sample.npz",
        "seen.safetensors",
    }
    assert (folder / "schema.yaml").read_bytes() == MIXED.encode()
    model = checkpoint.load(folder)
    (request,) = sample_requests(folder, [(7, 2)])
    with torch.no_grad():
        assert model({name: torch.from_numpy(array) for name, array in request.items()}).shape == (7, 2)


def test_the_record_says_how_the_run_was_made_and_no_path_of_this_machine(tmp_path: Path) -> None:
    run(tmp_path, seed=3)
    text = (tmp_path / "run" / "run.json").read_text()
    record = json.loads(text)
    assert record["seed"] == 3
    assert record["rows"] == {"train": 800, "valid": 200, "test": 200}
    digest = hashlib.sha256((tmp_path / "examples.parquet").read_bytes()).hexdigest()
    assert record["examples_sha256"] == digest
    assert set(record["versions"]) == {"python", "torch", "numpy", "rankd"}
    assert record["settings"]["model_config"] == SMALL
    assert record["started_at"] <= record["ended_at"]
    assert [epoch["epoch"] for epoch in record["epochs"]] == [1, 2]
    assert str(tmp_path) not in text


def test_metrics_are_given_by_split_and_task_and_written_down(tmp_path: Path) -> None:
    result = run(tmp_path)
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert list(written) == ["train", "valid", "test"]
    for split, by_task in written.items():
        assert list(by_task) == ["click", "buy"]
        for task, found in by_task.items():
            assert found["auc"] == result.metrics[split][task].auc
            assert set(found) == {"rows", "base_rate", "auc", "user_auc", "log_loss", "calibration_error"}


def test_a_model_of_interactions_learns_what_a_linear_one_cannot(tmp_path: Path) -> None:
    settings = {"epochs": 12, "patience": 12, "learning_rate": 0.01}
    crossed = run(tmp_path, name="mlcc", model_config={**SMALL, "embedding_std": 0.3}, **settings)
    linear = run(tmp_path, name="lr", model="lr", model_config={}, **settings)
    assert (crossed.metrics["test"]["click"].auc or 0) > 0.8
    assert (linear.metrics["test"]["click"].auc or 1) < 0.65


def test_the_best_epochs_weights_are_kept_and_training_stops_early(tmp_path: Path) -> None:
    heard = Recorder()
    settings: dict[str, Any] = {
        "model": "lr",
        "model_config": {},
        "epochs": 40,
        "patience": 2,
        "learning_rate": 0.05,
    }
    result = run(tmp_path, progress=heard, **settings)
    epochs = result.record.epochs
    means = [sum(e.valid_auc.values()) / 2 for e in epochs]
    assert result.record.best_epoch == means.index(max(means)) + 1
    assert len(epochs) == result.record.best_epoch + 2 < 40
    valid = [found.auc for found in result.metrics["valid"].values()]
    assert valid == list(epochs[result.record.best_epoch - 1].valid_auc.values())


@pytest.mark.parametrize(("stop_on", "sign"), [("user_auc", 1), ("log_loss", -1)])
def test_the_best_epoch_is_the_best_by_what_was_asked_for(tmp_path: Path, stop_on: str, sign: int) -> None:
    result = run(tmp_path, stop_on=stop_on, epochs=8, patience=8, learning_rate=0.05)
    by_epoch = [getattr(epoch, f"valid_{stop_on}").values() for epoch in result.record.epochs]
    means = [sign * sum(values) / 2 for values in by_epoch]
    assert result.record.best_epoch == means.index(max(means)) + 1
    kept = [getattr(found, stop_on) for found in result.metrics["valid"].values()]
    assert kept == list(by_epoch[result.record.best_epoch - 1])


@pytest.mark.parametrize("learning_rate", [0.001, 0.05])  # the last epoch is the best, an earlier one is
def test_with_an_average_what_is_kept_is_what_was_judged(tmp_path: Path, learning_rate: float) -> None:
    given = {"epochs": 6, "patience": 6, "learning_rate": learning_rate, "unknown_rates": {"user_id": 0.3}}
    plain, result = (run(tmp_path, name=str(d), average_decay=d, **given) for d in (0.0, 0.9))
    best = result.record.epochs[result.record.best_epoch - 1]
    assert [found.auc for found in result.metrics["valid"].values()] == list(best.valid_auc.values())
    assert best.valid_auc != plain.record.epochs[result.record.best_epoch - 1].valid_auc


def test_rates_that_fall_lead_elsewhere(tmp_path: Path) -> None:
    weights = [
        load_file(run(tmp_path, name=s, schedule=s).folder / "weights.safetensors")["head.weight"]
        for s in ("constant", "linear", "cosine")
    ]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


def test_a_table_that_goes_row_by_row_learns_what_a_dense_one_does(tmp_path: Path) -> None:
    settings = {"embedding_decay": 0.1, "unknown_rates": {"user_id": 0.3}, "epochs": 3, "batch_size": 50}
    dense = run(tmp_path, name="dense", embedding_optimiser="adam", **settings)
    rows = run(tmp_path, name="rows", embedding_optimiser="deferred_adam", **settings)
    one, two = (load_file(tmp_path / n / "weights.safetensors") for n in ("dense", "rows"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-5)
    assert rows.metrics["test"]["click"].auc == pytest.approx(dense.metrics["test"]["click"].auc, abs=1e-4)


@pytest.mark.parametrize("optimiser", ["lazy_adam", "rowwise_adagrad"])
def test_other_optimisers_of_rows_learn_too(tmp_path: Path, optimiser: str) -> None:
    config = {**SMALL, "embedding_std": 0.3}
    settings: dict[str, Any] = {"epochs": 12, "patience": 12, "learning_rate": 0.01}
    settings["embedding_learning_rate"] = 0.05
    result = run(tmp_path, model_config=config, embedding_optimiser=optimiser, **settings)
    assert (result.metrics["test"]["click"].auc or 0) > 0.8


def test_sixteen_bits_are_enough_to_learn_with(tmp_path: Path) -> None:
    config = {**SMALL, "embedding_std": 0.3}
    settings = {"model_config": config, "epochs": 12, "patience": 12, "learning_rate": 0.01}
    full, half = (run(tmp_path, name=p, precision=p, **settings) for p in ("float32", "bfloat16"))
    assert full.metrics["test"]["click"].auc == pytest.approx(half.metrics["test"]["click"].auc, abs=0.02)
    weights = load_file(tmp_path / "bfloat16" / "weights.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert not torch.equal(
        weights["head.weight"], load_file(tmp_path / "float32" / "weights.safetensors")["head.weight"]
    )


@pytest.mark.slow  # compiling takes minutes
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_model_learns_the_same(tmp_path: Path) -> None:
    config = {**SMALL, "dropout": 0.0}
    for name, given in (("eager", {}), ("compiled", {"compile": True})):
        run(tmp_path, name=name, epochs=1, model_config=config, embedding_optimiser="deferred_adam", **given)
    one, two = (load_file(tmp_path / n / "weights.safetensors") for n in ("eager", "compiled"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-4)


def test_progress_hears_every_epoch_and_step(tmp_path: Path) -> None:
    heard = Recorder()
    result = run(tmp_path, progress=heard)
    num_rows = sum(result.record.rows.values())
    assert heard.rows[-1] == (num_rows, num_rows)
    steps = [("step", k) for k in range(1, 8)]  # 800 rows in batches of 128
    assert heard.heard == [
        ("run", "mlcc", 2, 7),
        *[("epoch", 1), *steps, ("end", 1, ("click", "buy"), True)],
        *[("epoch", 2), *steps, ("end", 2, ("click", "buy"), heard.heard[-1][-1])],
    ]


def test_the_terminal_shows_epochs_and_a_table(tmp_path: Path) -> None:
    console = Console(record=True, width=120, force_terminal=True)
    with RichProgress(console) as progress:
        result = run(tmp_path, progress=progress)
    console.print(render_metrics(result))
    text = console.export_text()
    assert "training mlcc" in text
    assert "epoch 2: loss" in text
    for word in ("valid", "click", "AUC per user", "ECE"):
        assert word in text


def test_the_bar_of_a_second_run_starts_from_nothing() -> None:
    with RichProgress(Console(record=True)) as progress:
        for steps in (3, 5):
            progress.run_started(
                model="optinter", parameters=7, stop_on="auc", epochs=1, steps_per_epoch=steps
            )
            (bar,) = progress._bar.tasks
            assert (bar.completed, bar.total) == (0, steps)
            progress.step(1, 0.5, 100.0)


def test_a_tasks_weight_scales_its_loss(tmp_path: Path) -> None:
    losses = {}
    for weight in ("1.0", "3.0"):
        folder = tmp_path / weight
        folder.mkdir()
        write(folder)
        (folder / "schema.yaml").write_text(MIXED.replace("weight: 2.0", f"weight: {weight}"))
        # With weights at zero and no learning to speak of, each task's loss is log 2.
        result = run(
            folder, model="lr", model_config={}, epochs=1, learning_rate=1e-9, start_at_base_rate=False
        )
        losses[weight] = result.record.epochs[0].loss
    assert losses["1.0"] == pytest.approx(2 * 0.6931, abs=1e-3)
    assert losses["3.0"] == pytest.approx(4 * 0.6931, abs=1e-3)


def test_a_run_begins_at_the_base_rate_unless_told_otherwise(tmp_path: Path) -> None:
    table = examples_table()
    write(tmp_path)
    train = table.filter(pc.field("split") == "train")
    rates = [float(np.mean(train[name].to_numpy())) for name in ("clicked", "bought")]
    assert abs(rates[1] - 0.5) > 0.1
    for told, expected in ((True, rates), (False, [0.5, 0.5])):
        name = f"run-{told}"
        run(
            tmp_path,
            name=name,
            model="fm",
            model_config={},
            epochs=1,
            learning_rate=1e-9,
            start_at_base_rate=told,
        )
        model = checkpoint.load(tmp_path / name)
        with torch.no_grad():
            score_NT = torch.sigmoid(model(random_inputs(model.schema, 3, 5)))
        assert torch.allclose(score_NT, torch.tensor(expected), atol=0.01)


def test_embedding_decay_touches_embeddings_only(tmp_path: Path) -> None:
    run(tmp_path, name="plain", epochs=1)
    run(tmp_path, name="decayed", epochs=1, embedding_decay=100.0)
    plain, decayed = (load_file(tmp_path / n / "weights.safetensors") for n in ("plain", "decayed"))
    norm = {n: (plain[n].norm() / decayed[n].norm()).item() for n in plain if decayed[n].norm() > 0}
    assert norm["embedding.table.weight"] > 1.3
    assert norm["tower.layers.0.weight"] == pytest.approx(1.0, abs=0.05)


def test_strangers_read_what_was_learned_for_them(tmp_path: Path) -> None:
    run(tmp_path, unknown_rates={"user_id": 0.5}, epochs=1)
    model = checkpoint.load(tmp_path / "run")
    table = model.embedding.table.weight.detach()[model.embedding.rows_of("user_id")]
    assert torch.equal(table[0], table[1])  # no training row lacks its user id, so row 0 was never read
    assert not torch.equal(table[2], table[1])


def test_training_that_diverges_says_so_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="lower learning_rate"):
        run(tmp_path, learning_rate=1e30)
    assert not (tmp_path / "run").exists()


def test_a_folder_in_use_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("precious")
    with pytest.raises(RunError, match="not empty"):
        run(tmp_path)
    assert (tmp_path / "run" / "mine.txt").read_text() == "precious"


def test_a_schema_that_is_not_there_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "schema.yaml").unlink()
    with pytest.raises(SchemaError, match=r"schema\.yaml: cannot be read"):
        run(tmp_path)


def test_a_run_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    write(tmp_path, with_column(examples_table(), "split", ["train"] * 1200))
    before = {p.name for p in tmp_path.iterdir()}
    with pytest.raises(ExamplesError):
        run(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({"model": "din"}, UnknownModel, "known: mlcc"),
        ({"model_config": {"head": 1}}, SettingError, "did you mean 'heads'"),
        ({"epochs": -1}, SettingError, "epochs: expected a number of at least 0, got -1"),
        ({"learning_rate": 0.0}, SettingError, "learning_rate"),
        ({"embedding_decay": float("inf")}, SettingError, "embedding_decay: expected a number of at least 0"),
        ({"model_config": {"task_hidden": [-1]}}, SettingError, "widths of a network: expected at least 1"),
        ({"batch_size": -1}, SettingError, "batch_size"),
        ({"unknown_rates": {"x": 0.1}}, SettingError, "unknown_rates: 'x'"),
        ({"checkpoint_steps": -1}, SettingError, "checkpoint_steps"),
        ({"embedding_learning_rate": 0.0}, SettingError, "embedding_learning_rate"),
        ({"gradient_clamp": 0.0}, SettingError, "gradient_clamp: expected a number above 0"),
        (
            {"average_decay": 0.9, "embedding_optimiser": "lazy_adam"},
            SettingError,
            "average_decay: .* set embedding_optimiser=adam",
        ),
        ({"average_decay": 1.0}, SettingError, "average_decay 1.0"),
        ({"schedule": "steps"}, SettingError, "constant, linear, cosine"),
        (
            {"embedding_optimiser": "lazy_adam", "embedding_decay": 100.0},
            SettingError,
            "set embedding_optimiser=adam",
        ),
        ({"group_column": "household"}, ExamplesError, "household"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_written(
    tmp_path: Path, given: dict[str, Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        run(tmp_path, **given)
    assert not (tmp_path / "run").exists()
