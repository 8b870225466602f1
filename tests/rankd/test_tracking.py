"""Runs in a real MLflow store, a file of its own; skipped where MLflow is not installed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rankd_training.data.catalog import describe
from tests.rankd.test_cli import rankd
from tests.support.server import free_port
from tests.support.tiny_run import invented_data

needs_mlflow = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason="needs pip install 'rankd[mlflow]'"
)


def train(folder: Path, *more: str, model: str = "lr") -> subprocess.CompletedProcess[str]:
    schema = describe("movielens-synthetic").schema
    words = [
        "--examples",
        "data/examples.parquet",
        "--schema",
        str(schema),
        "--model",
        model,
        "--epochs",
        "2",
    ]
    return rankd("train", *words, "--home", "home", "--output", "home/runs/one", *more, cwd=folder)


def client(folder: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")


@needs_mlflow
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own, of its store
def test_a_run_is_logged_epoch_by_epoch_and_its_bundle_joins_it(tmp_path: Path) -> None:
    invented_data(tmp_path / "data")
    done = train(
        tmp_path, "--mlflow", "sqlite:///mlflow.db", "--mlflow-experiment", "films", "--set", "batch_size=128"
    )
    assert done.returncode == 0, done.stderr
    said = json.loads((tmp_path / "home" / "runs" / "one" / "mlflow.json").read_text())
    assert said["tracking"] == "sqlite:///mlflow.db"
    store = client(tmp_path)
    run = store.get_run(said["run"])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "one")
    assert store.get_experiment(run.info.experiment_id).name == "films"
    record = json.loads((tmp_path / "home" / "runs" / "one" / "run.json").read_text())
    losses = store.get_metric_history(said["run"], "train/loss")
    assert [(m.step, m.value) for m in losses] == [(e["epoch"], e["loss"]) for e in record["epochs"]]
    for task in ("liked", "loved"):
        assert len(store.get_metric_history(said["run"], f"valid/auc/{task}")) == 2
        assert len(store.get_metric_history(said["run"], f"valid/log_loss/{task}")) == 2
    metrics = json.loads((tmp_path / "home" / "runs" / "one" / "metrics.json").read_text())
    assert "best/test/auc/liked" in run.data.metrics
    assert run.data.metrics["best/valid/log_loss/liked"] == metrics["valid"]["liked"]["log_loss"]
    assert run.data.params["batch_size"] == "128"
    assert run.data.params["seed"] == str(record["seed"])
    assert run.data.tags["rankd.examples_sha256"] == record["examples_sha256"]
    files = {file.path for file in store.list_artifacts(said["run"])}
    assert {"run.json", "metrics.json", "schema.yaml"} <= files

    exported = rankd("export", "home/runs/one", "--home", "home", "--mlflow", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    bundled = {file.path for file in store.list_artifacts(said["run"], "bundle/1")}
    assert {"bundle/1/model.onnx", "bundle/1/manifest.json", "bundle/1/golden.npz"} <= bundled
    assert store.get_run(said["run"]).data.tags["rankd.bundle.version"] == "1"


@needs_mlflow
@pytest.mark.slow
def test_a_store_that_cannot_be_reached_is_said_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invented_data(tmp_path / "data")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    port = free_port()
    done = train(tmp_path, "--mlflow", f"http://somebody:secret@127.0.0.1:{port}")
    assert done.returncode == 1
    assert f"MLflow at http://127.0.0.1:{port}: " in done.stderr
    assert "secret" not in done.stderr
    assert "epoch" not in done.stderr
    assert not (tmp_path / "home" / "runs").exists()


@needs_mlflow
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as above
def test_a_run_that_fails_is_said_to_have_failed(tmp_path: Path) -> None:
    invented_data(tmp_path / "data")
    done = train(tmp_path, "--mlflow", "sqlite:///mlflow.db", "--set", "learning_rate=1e30", model="mlcc")
    assert done.returncode == 1, done.stdout
    store = client(tmp_path)
    (run,) = store.search_runs([store.get_experiment_by_name("rankd").experiment_id])
    assert run.info.status == "FAILED"


def test_where_mlflow_is_not_installed_its_extra_is_named(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['mlflow'] = None; sys.argv = ['rankd', 'train', '--data', "
        "'movielens-synthetic', '--mlflow', 'sqlite:///x.db']; from rankd.cli import main; main()"
    )
    (tmp_path / "examples.parquet").touch()
    arguments = ["--examples", "examples.parquet", "--schema", str(describe("movielens-synthetic").schema)]
    program = program.replace("'--data', 'movielens-synthetic'", ", ".join(map(repr, arguments)))
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "pip install 'rankd[mlflow]'" in done.stderr


def test_a_bundle_of_a_run_that_was_not_logged_says_how_to_log_one(tmp_path: Path) -> None:
    done = rankd("export", "run", "--mlflow", cwd=tmp_path)
    assert done.returncode == 2
    assert "train with `rankd train --mlflow ADDRESS`" in done.stderr
