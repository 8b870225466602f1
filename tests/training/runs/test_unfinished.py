from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rankd_training.errors import RunError
from rankd_training.progress import SILENT
from rankd_training.recipes.ctr import resume, train
from rankd_training.runs.unfinished import Unfinished
from rankd_training.settings import TrainSettings
from tests.training.tables import examples_table, with_value, write

HIDDEN = {"embedding_width": 4, "hidden": [16], "dropout": 0.1}


class Killed(Exception):
    """Stands for what ends a process."""


class KilledAt:
    """Ends a run at its n-th step, over all epochs."""

    def __init__(self, step: int) -> None:
        self.left = step

    def rows_read(self, done: int, total: int) -> None: ...

    def run_started(self, **told: Any) -> None: ...

    def epoch_started(self, epoch: int) -> None: ...

    def epoch_ended(self, *told: Any, score: float, best: bool) -> None: ...

    def step(self, step: int, loss: float, rows_per_s: float) -> None:
        self.left -= 1
        if not self.left:
            raise Killed


def told(folder: Path, name: str, **given: Any) -> TrainSettings:
    if not (folder / "examples.parquet").exists():
        write(folder)
    settings: dict[str, Any] = {"model_config": HIDDEN, "epochs": 3, "batch_size": 128, **given}
    settings.setdefault("unknown_rates", {"user_id": 0.3})
    return TrainSettings(folder / "examples.parquet", folder / "schema.yaml", folder / name, **settings)


def equal(one: Path, two: Path) -> bool:
    first, second = (load_file(folder / "weights.safetensors") for folder in (one, two))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# Seven steps an epoch: in the first epoch, at the end of one, in the middle of the second.
@pytest.mark.parametrize("step", [3, 7, 11])
@pytest.mark.parametrize("optimiser", ["adam", "deferred_adam", "rowwise_adagrad"])
@pytest.mark.parametrize("every", [0, 2])
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(
    tmp_path: Path, step: int, optimiser: str, every: int
) -> None:
    given = {"embedding_optimiser": optimiser, "checkpoint_steps": every, "embedding_decay": 0.01}
    given |= {"schedule": "linear", "average_decay": 0.9 if optimiser == "adam" else 0.0}
    whole = train(told(tmp_path, "whole", **given))
    with pytest.raises(Killed):
        train(told(tmp_path, "killed", **given), progress=KilledAt(step))
    assert not (tmp_path / "killed").exists()
    resumed = resume(tmp_path / "killed")
    assert equal(tmp_path / "whole", tmp_path / "killed")
    assert resumed.metrics == whole.metrics
    assert [(e.loss, e.valid_auc) for e in resumed.record.epochs] == [
        (e.loss, e.valid_auc) for e in whole.record.epochs
    ]
    assert resumed.record.settings == whole.record.settings
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_a_process_that_gets_sigkill_loses_nothing(tmp_path: Path) -> None:
    settings = ["epochs=6", "batch_size=16", "checkpoint_steps=5", "model.embedding_width=4"]
    write(tmp_path)
    command = [sys.executable, "-m", "rankd.cli", "train", "--examples", "examples.parquet"]
    command += ["--schema", "schema.yaml", *(f"--set={setting}" for setting in settings)]
    subprocess.run([*command, "--output", "whole"], cwd=tmp_path, check=True, capture_output=True)
    process = subprocess.Popen(
        [*command, "--output", "killed"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    place, deadline = tmp_path / ".killed.unfinished", time.monotonic() + 60
    while not list(place.glob("state-00002-*")):  # in the second epoch
        assert process.poll() is None, "the run was over before it could be killed"
        assert time.monotonic() < deadline
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    go_on = [sys.executable, "-m", "rankd.cli", "train", "--resume", "killed"]
    done = subprocess.run(go_on, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert Path(done.stdout.strip()) == tmp_path / "killed"
    assert equal(tmp_path / "whole", tmp_path / "killed")


def test_a_second_run_to_the_same_place_is_told_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(told(tmp_path, "run"), progress=KilledAt(3))
    with pytest.raises(RunError, match=r"rankd train --resume .*run"):
        train(told(tmp_path, "run"))


def test_there_is_nothing_to_go_on_with_after_a_finished_run(tmp_path: Path) -> None:
    train(told(tmp_path, "run", epochs=1))
    with pytest.raises(RunError, match="it is finished"):
        resume(tmp_path / "run")
    with pytest.raises(RunError, match="no run to there was begun"):
        resume(tmp_path / "other")


def test_examples_that_changed_in_between_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(told(tmp_path, "run"), progress=KilledAt(9))
    write(tmp_path, with_value(examples_table(), "income", 3, 0.5))
    with pytest.raises(RunError, match="has changed since the run was begun"):
        resume(tmp_path / "run")
    write(tmp_path)
    assert resume(tmp_path / "run", progress=SILENT).record.best_epoch


def test_a_schema_that_changed_in_between_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    """Else a run would be published under a schema that it was not trained by."""
    with pytest.raises(Killed):
        train(told(tmp_path, "run"), progress=KilledAt(9))
    schema = told(tmp_path, "run").schema
    text = schema.read_text()
    changed = text.replace("default: 0", "default: 1", 1)
    assert changed != text
    schema.write_text(changed)
    with pytest.raises(RunError, match="has changed since the run was begun"):
        resume(tmp_path / "run")
    schema.write_text(text)
    assert resume(tmp_path / "run", progress=SILENT).record.best_epoch


def test_two_processes_are_not_at_one_run(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(told(tmp_path, "run"), progress=KilledAt(9))
    with (
        Unfinished(tmp_path / "run").alone(),
        pytest.raises(RunError, match="another process is at this run"),
    ):
        resume(tmp_path / "run")
    assert resume(tmp_path / "run", progress=SILENT).record.best_epoch


def test_a_state_that_is_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(told(tmp_path, "run"), progress=KilledAt(9))
    (state,) = Unfinished(tmp_path / "run").folder.glob("state-*")
    (state / "optimiser.safetensors").write_bytes(b"nonsense")
    with pytest.raises(RunError, match="state-00002-000000000"):
        resume(tmp_path / "run")


def test_what_is_kept_are_tensors_and_json_only(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(told(tmp_path, "run", checkpoint_steps=1), progress=KilledAt(9))
    kinds = {path.suffix for path in Unfinished(tmp_path / "run").folder.rglob("*") if path.is_file()}
    assert kinds == {".json", ".safetensors"}
