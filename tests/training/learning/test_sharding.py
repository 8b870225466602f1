"""Tables that processes hold in parts learn what tables that each process holds whole would."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from safetensors.torch import load_file

from rankd_training.errors import SettingError
from rankd_training.learning import sharding
from rankd_training.learning.ranks import ALONE, Ranks
from rankd_training.learning.sharding import check_sharding
from rankd_training.models.registry import names
from rankd_training.recipes import ctr
from rankd_training.runs import checkpoint
from rankd_training.settings import TrainSettings
from tests.training.learning.killing import kill_in_the_second_epoch
from tests.training.tables import write

ROOT = Path(__file__).parents[3]
WORKER = Path(__file__).with_name("together.py")
# A shift before a batch norm has no gradient but rounding, of which Adam makes whole steps; no score tells.
MOVED_BY_ROUNDING = ("bias", "running_mean")
# From there rounding reaches all of ARM-Net's weights: after seventeen steps an unshared run whose learning
# rate is 1e-7 larger is 6e-3 away in weights and 1e-4 in log loss (bench/shared_or_whole.py). Two are exact.
ARMNET_ROWS = 400
ROW_RULES = ["deferred_adam", "lazy_adam", "rowwise_adagrad"]

with_torchrec = pytest.mark.skipif(
    find_spec("torchrec") is None or find_spec("fbgemm_gpu") is None,
    reason=f"TorchRec is not installed: {sharding.INSTALL}",
)


def launch(processes: int, *command: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
        *command,
    ]


def together(folder: Path, cases: dict[str, dict[str, Any]], *, processes: int) -> None:
    (folder / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    done = subprocess.run(
        launch(processes, str(WORKER)), cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def assert_same_run(folder: Path, one: str, other: str) -> None:
    """Weights, losses and what validation rows say agree within 1e-5."""
    weights = [load_file(folder / run / "weights.safetensors") for run in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        if not (one.startswith("armnet") and name.endswith(MOVED_BY_ROUNDING)):
            torch.testing.assert_close(weights[1][name], weight, rtol=0, atol=1e-5)
    records = [json.loads((folder / run / "run.json").read_text(encoding="utf-8")) for run in (one, other)]
    assert records[0]["parameters"] == records[1]["parameters"]
    for first, second in zip(records[0]["epochs"], records[1]["epochs"], strict=True):
        assert second["loss"] == pytest.approx(first["loss"], abs=1e-5)
        assert second["valid_log_loss"] == pytest.approx(first["valid_log_loss"], abs=1e-5)
    checkpoint.load(folder / other)  # complete, as evaluation and export read it


@with_torchrec
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_model_learns_the_same(tmp_path: Path) -> None:
    write(tmp_path)  # 800 training rows: the last batch of 47 has one, which only the first process sees
    # With seed 42 MMoE crosses a kink of its ReLUs, which a learning rate 1e-7 larger does too, unshared.
    shared = {"epochs": 1, "batch_size": 47, "embedding_optimiser": "deferred_adam", "seed": 7}
    cases = {
        f"{name}-{kind}": {
            **shared,
            "model": name,
            "embedding_sharding": kind,
            **({"batch_size": ARMNET_ROWS} if name == "armnet" else {}),
        }
        for name in names()
        for kind in ("none", "row_wise")
    }
    together(tmp_path, cases, processes=2)
    for name in names():
        assert_same_run(tmp_path, f"{name}-none", f"{name}-row_wise")
    left = [path.name for path in tmp_path.glob(".*")]
    assert not left, "nothing half done is left"


@with_torchrec
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_row_rule_moves_the_same_rows_in_parts_of_unequal_size(tmp_path: Path) -> None:
    write(tmp_path)
    shared = {
        "epochs": 2,
        "batch_size": 150,
        "learning_rate": 0.01,
        "embedding_decay": 0.1,
        "unknown_rates": {"user_id": 0.3},
        "calibration": "platt",
    }
    cases = {
        f"{rule}-{kind}": {**shared, "embedding_optimiser": rule, "embedding_sharding": kind}
        for rule in ROW_RULES
        for kind in ("none", "row_wise")
    }
    together(tmp_path, cases, processes=3)
    for rule in ROW_RULES:
        assert_same_run(tmp_path, f"{rule}-none", f"{rule}-row_wise")


@with_torchrec
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_shared_run_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    write(tmp_path)
    settings = {"epochs": 8, "batch_size": 16, "checkpoint_steps": 5, "unknown_rates": {"user_id": 0.3}}
    told = ["--examples=examples.parquet", "--schema=schema.yaml", "--shard-tables"]
    told += [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]
    train = ["-m", "rankd.cli", "train"]
    together(tmp_path, {"whole": {**settings, "embedding_sharding": "row_wise"}}, processes=2)
    kill_in_the_second_epoch(tmp_path, launch(2, *train, *told, "--output=killed"), "killed")
    alone = subprocess.run(
        [sys.executable, *train, "--resume=killed"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert alone.returncode == 1
    assert "was begun with 2 processes" in " ".join(alone.stderr.split())
    subprocess.run(launch(2, *train, "--resume=killed"), cwd=tmp_path, capture_output=True, check=True)
    whole, killed = (load_file(tmp_path / run / "weights.safetensors") for run in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


@with_torchrec
def test_the_requirements_file_names_all_that_its_packages_need() -> None:
    named = {wanted.name: wanted for wanted in map(Requirement, lines(ROOT / sharding.FILE))}
    known = {canonicalize_name(name) for name in named}
    known |= {canonicalize_name(line.split("==")[0]) for line in lines(ROOT / "constraints" / "all.txt")}
    for name, wanted in named.items():
        assert wanted.specifier.contains(metadata.version(name)), f"{wanted} is not what is tested"
        needs = [need for need in map(Requirement, metadata.requires(name) or []) if needed(need)]
        missing = {canonicalize_name(need.name) for need in needs} - known - {"fbgemm-gpu"}
        assert not missing, f"{name} needs {missing}"


def lines(path: Path) -> list[str]:
    found = path.read_text(encoding="utf-8").splitlines()
    return [line for line in found if line and not line.startswith("#")]


def needed(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def told(**settings: Any) -> TrainSettings:
    return TrainSettings(Path("x"), Path("y"), Path("z"), embedding_sharding="row_wise", **settings)


def test_one_process_is_told_how_to_start_several(tmp_path: Path) -> None:
    examples, schema = write(tmp_path)
    settings = TrainSettings(examples, schema, tmp_path / "run", embedding_sharding="row_wise")
    with pytest.raises(SettingError, match="torchrun"):
        ctr.train(settings)
    assert {path.name for path in tmp_path.iterdir()} == {examples.name, schema.name}


def test_an_optimiser_that_moves_whole_tables_is_refused_and_another_named() -> None:
    with pytest.raises(SettingError, match="deferred_adam has the same results"):
        check_sharding(told(embedding_optimiser="adam"), Ranks(0, 2))


def test_without_torchrec_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "find_spec", lambda _: None)
    with pytest.raises(SettingError, match=r"pip install --no-deps -r training/requirements-torchrec\.txt"):
        check_sharding(told(), Ranks(0, 2))
    check_sharding(TrainSettings(Path("x"), Path("y"), Path("z")), ALONE)
