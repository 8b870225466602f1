"""Where Ray is installed (training/requirements-ray.txt), with `-m slow`; starts a cluster of its own."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rankd_training.errors import RunError
from rankd_training.learning.sharding import INSTALL
from rankd_training.recipes.ctr import train
from rankd_training.settings import TrainSettings
from tests.training.tables import write

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=3, include_dashboard=False, object_store_memory=100 << 20, _node_ip_address="127.0.0.1")
    yield
    ray.shutdown()


def settings(folder: Path, output: str, **given: Any) -> TrainSettings:
    config = {"embedding_width": 4, "hidden": [16], "dropout": 0.0}
    told: dict[str, Any] = {
        "model_config": config,
        "epochs": 1,
        "batch_size": 150,
        "learning_rate": 0.01,
        **given,
    }
    return TrainSettings(folder / "examples.parquet", folder / "schema.yaml", folder / output, **told)


def test_two_workers_end_where_one_process_does_and_failures_say_why(tmp_path: Path, cluster: None) -> None:
    from rankd_training.recipes.on_ray import train_on_ray

    write(tmp_path)
    train(settings(tmp_path, "alone"))
    result = train_on_ray(settings(tmp_path, "together"), workers=2)
    alone, together = (load_file(tmp_path / o / "weights.safetensors") for o in ("alone", "together"))
    for name, weight in alone.items():
        torch.testing.assert_close(together[name], weight, rtol=0, atol=1e-5)
    assert result.metrics["test"]["click"].rows == 200
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(RunError, match="head"):
        train_on_ray(settings(tmp_path, "wrong", model_config={"head": 3}), workers=1)
    assert not (tmp_path / "wrong").exists()


@pytest.mark.skipif(find_spec("torchrec") is None, reason=f"TorchRec is not installed: {INSTALL}")
def test_two_workers_that_share_tables_end_there_too(tmp_path: Path, cluster: None) -> None:
    from rankd_training.recipes.on_ray import train_on_ray

    write(tmp_path)
    train(settings(tmp_path, "alone", embedding_optimiser="deferred_adam"))
    train_on_ray(settings(tmp_path, "together", embedding_sharding="row_wise"), workers=2)
    alone, together = (load_file(tmp_path / o / "weights.safetensors") for o in ("alone", "together"))
    for name, weight in alone.items():
        torch.testing.assert_close(together[name], weight, rtol=0, atol=1e-5)
