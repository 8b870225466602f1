"""From a run's folder to a published bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from rankd_contract.bundle import open_bundle
from rankd_contract.errors import CorruptBundle
from rankd_contract.repository import current_version, open_current, versions
from rankd_contract.signature import FIELD_WEIGHTS, SCORES
from rankd_export.errors import QualityLost, RunUnusable
from rankd_export.exporter import GOLDEN, PARITY, Variant, export_run
from rankd_export.parity import run_onnx
from rankd_export.precision import Precision
from rankd_service.inference.loader import load_current
from rankd_service.settings_sources import load_settings
from rankd_training.errors import TrainingError
from tests.support.tiny_run import invented_data, tiny_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return tiny_run(invented_data(folder / "data"), folder / "mlcc")


@pytest.fixture(scope="module")
def repository(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model, exported twice from the same run."""
    folder = tmp_path_factory.mktemp("bundles")
    for _ in range(2):
        export_run(run, folder, name="films", fusion={"liked": 1, "loved": 0.5})
    return folder


def test_bundle_replays_its_golden_requests(repository: Path) -> None:
    bundle = open_current(repository, "films")
    graph = onnx.load(bundle.graph)
    names = {spec.name for spec in bundle.manifest.inputs}
    with np.load(bundle.golden, allow_pickle=False) as arrays:
        for k, (candidates, _) in enumerate(GOLDEN):
            request = {name: arrays[f"r{k}/{name}"] for name in names}
            expected = arrays[f"r{k}/{SCORES}"]
            ((_, scores),) = run_onnx(graph, [request])
            assert expected.shape == (candidates, 2)
            np.testing.assert_allclose(scores, expected, atol=bundle.manifest.golden_tolerance)


def test_manifest_says_what_the_bundle_is_and_how_it_was_proved(repository: Path) -> None:
    manifest = open_current(repository, "films").manifest
    assert (manifest.model, manifest.architecture) == ("films", "mlcc")
    assert manifest.fusion == {"liked": 1, "loved": 0.5}
    assert [(size["candidates"], size["users"]) for size in manifest.parity["sizes"]] == list(PARITY)
    assert manifest.metrics["test"]["liked"]["rows"] > 0
    assert manifest.record["seed"] == 1


def test_second_export_is_the_next_version_and_the_pointer_moves(repository: Path) -> None:
    assert versions(repository, "films") == [1, 2]
    assert current_version(repository, "films") == 2


def test_graph_is_the_same_bytes_for_the_same_run(repository: Path) -> None:
    first, second = (open_bundle(repository / "films" / str(version)) for version in (1, 2))
    assert first.manifest.files["model.onnx"] == second.manifest.files["model.onnx"]


@pytest.mark.parametrize(
    ("fusion", "word"),
    [({"clicked": 1.0}, "clicked"), ({"liked": -1.0}, "at least 0"), ({"liked": float("nan")}, "at least 0")],
)
def test_fusion_that_cannot_rank_is_refused(
    run: Path, tmp_path: Path, fusion: dict[str, float], word: str
) -> None:
    with pytest.raises(RunUnusable, match=word):
        export_run(run, tmp_path, fusion=fusion)


@pytest.mark.parametrize(
    "missing", ["weights.safetensors", "model.json", "schema.yaml", "run.json", "sample.npz"]
)
def test_incomplete_run_is_refused_and_nothing_is_published(run: Path, tmp_path: Path, missing: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / missing).unlink()
    with pytest.raises((RunUnusable, TrainingError)):
        export_run(broken, tmp_path / "bundles")
    with pytest.raises(CorruptBundle):
        open_current(tmp_path / "bundles", "mlcc")


def test_a_run_is_exported_with_its_explanation_where_asked(tmp_path: Path) -> None:
    run = tiny_run(invented_data(tmp_path / "data"), tmp_path / "armnet", "armnet")
    bundle = export_run(run, tmp_path / "bundles", explain=True)
    spec = bundle.manifest.outputs[-1]
    assert (spec.name, spec.dims) == (FIELD_WEIGHTS, ("N", len(bundle.schema.fields), 64))
    assert load_current(tmp_path / "bundles", "armnet", load_settings()).card.name == "armnet"


def test_fewer_bits_are_published_with_what_they_lose_and_load(run: Path, tmp_path: Path) -> None:
    examples = run.parent / "data" / "examples.parquet"
    bundle = export_run(
        run, tmp_path, variant=Variant(Precision.INT8_EMBEDDINGS, examples, max_auc_loss=0.05)
    )
    about = bundle.manifest.export
    assert about["precision"] == "int8-embeddings"
    assert set(about["lost"]) == {"liked", "loved"}
    assert 0 < about["lost"]["liked"]["largest_difference"] < 0.05
    told = bundle.manifest.metrics["valid"]["liked"]["auc"]  # of scores that are all but equal
    assert about["lost"]["liked"]["auc"] == pytest.approx(told, abs=1e-3)
    assert load_current(tmp_path, "mlcc", load_settings()).card.name == "mlcc"


def test_fewer_bits_that_lose_too_much_publish_nothing(run: Path, tmp_path: Path) -> None:
    examples = run.parent / "data" / "examples.parquet"
    with pytest.raises(QualityLost, match=r"task liked: AUC on 250 valid rows falls .*allowed is -1"):
        export_run(run, tmp_path, variant=Variant(Precision.INT8, examples, max_auc_loss=-1))
    assert versions(tmp_path, "mlcc") == []
