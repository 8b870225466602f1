"""A bundle with a graph for CUDA: what it says, what is refused, and that both score alike."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest

from bench import stub_cuda
from rankd_contract.errors import CorruptBundle
from rankd_contract.manifest import CUDA_GRAPH, WEIGHTS
from rankd_contract.repository import publish, versions
from rankd_contract.signature import SCORES
from rankd_export import weights
from rankd_export.cuda.artefact import CudaPlan, CudaPrecision
from rankd_export.cuda.kernels import known_kernels
from rankd_export.errors import QualityLost, RunUnusable
from rankd_export.exporter import Variant, export_run
from rankd_export.precision import Precision
from rankd_service.inference.buckets import Bucketed
from rankd_service.inference.captured import CapturedRuns
from rankd_service.inference.loader import load_current
from rankd_service.inference.session import GraphSession
from rankd_service.provider import ProviderChoice
from rankd_service.settings_sources import load_settings
from tests.export.requests import random_request
from tests.support.tiny_run import invented_data, tiny_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return tiny_run(invented_data(folder / "data"), folder / "mlcc")


def examples(run: Path) -> Path:
    return run.parent / "data" / "examples.parquet"


@pytest.mark.slow
def test_both_graphs_of_a_bundle_score_alike_and_share_their_weights(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights.write_apart, "__kwdefaults__", {"smallest": 1000})
    bundle = export_run(run, tmp_path, cuda=CudaPlan(buckets=(8, 32)))
    cuda = bundle.manifest.cuda
    assert cuda is not None
    assert (cuda.precision, cuda.buckets, cuda.onnxruntime) == ("fp32", (8, 32), known_kernels().onnxruntime)
    assert cuda.operators["FusedMatMul"] > 0
    assert {size["users"] for size in cuda.parity["sizes"]} == {1}
    here = GraphSession(bundle.cuda_graph, 1, ProviderChoice.CPU)
    bucketed = Bucketed(CapturedRuns(here, cuda.buckets, "cpu"), cuda)
    portable = GraphSession(bundle.graph, 1, ProviderChoice.CPU)
    for users, candidates in ((1, 1), (1, 9), (1, 100), (3, 20)):
        request = random_request(bundle.schema, candidates, users, seed=candidates)
        found, expected = (s.run((SCORES,), request)[0] for s in (bucketed, portable))
        np.testing.assert_allclose(found, expected, atol=1e-6)
    portable_graph, cuda_graph = (
        onnx.load(p, load_external_data=False) for p in (bundle.graph, bundle.cuda_graph)
    )
    at = [
        {w.name: [(e.key, e.value) for e in w.external_data] for w in g.graph.initializer if w.external_data}
        for g in (portable_graph, cuda_graph)
    ]
    assert at[0] == at[1] != {}
    assert WEIGHTS in bundle.manifest.files
    for provider in ("cpu", "prefer_cuda"):
        if provider == "cpu" or not Path("/dev/nvidia0").exists():
            settings = load_settings(inference={"provider": provider})
            assert load_current(tmp_path, "mlcc", settings).card.provider == "CPUExecutionProvider"
    if stub_cuda.absence() is None:
        assert "scores differ from the recorded ones" in refused_on_a_device_that_computes_nothing(tmp_path)


_LOAD = """
import sys
from pathlib import Path
from rankd_service.errors import BundleRefused
from rankd_service.inference.loader import load_current
from rankd_service.settings_sources import load_settings

try:
    load_current(Path(sys.argv[1]), "mlcc", load_settings(inference={"provider": "require_cuda"}))
except BundleRefused as refused:
    print(refused)
"""


def refused_on_a_device_that_computes_nothing(repository: Path) -> str:
    with TemporaryDirectory() as folder:
        return subprocess.run(
            [sys.executable, "-c", _LOAD, str(repository)],
            env=stub_cuda.environment(stub_cuda.build(Path(folder))),
            capture_output=True,
            text=True,
            check=True,
        ).stdout


@pytest.mark.parametrize(
    "precision", [pytest.param(CudaPrecision.FP16, marks=pytest.mark.slow), CudaPrecision.BF16]
)
def test_fewer_bits_are_published_with_what_they_lose(
    run: Path, tmp_path: Path, precision: CudaPrecision
) -> None:
    bundle = export_run(run, tmp_path, cuda=CudaPlan(precision, (64,), examples(run), max_auc_loss=0.05))
    cuda = bundle.manifest.cuda
    assert cuda is not None
    assert set(cuda.lost) == {"liked", "loved"}
    told = bundle.manifest.metrics["valid"]["liked"]["auc"]  # of scores that are all but equal
    assert cuda.lost["liked"]["auc"] == pytest.approx(told, abs=1e-3)
    assert 0 < cuda.parity["max_score_error"] <= cuda.golden_tolerance / 2
    assert bundle.manifest.export["precision"] == "fp32"


def test_fewer_bits_that_lose_too_much_publish_nothing(run: Path, tmp_path: Path) -> None:
    plan = CudaPlan(CudaPrecision.BF16, (64,), examples(run), max_auc_loss=-1)
    with pytest.raises(QualityLost, match="allowed is -1"):
        export_run(run, tmp_path, cuda=plan)
    assert versions(tmp_path, "mlcc") == []


@pytest.mark.parametrize(
    ("plan", "word"),
    [
        (CudaPlan(buckets=(64, 32)), "ascending"),
        (CudaPlan(CudaPrecision.FP16), "needs examples"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused_before_anything_is_made(
    tmp_path: Path, plan: CudaPlan, word: str
) -> None:
    with pytest.raises(RunUnusable, match=word):
        export_run(tmp_path / "no run at all", tmp_path, cuda=plan)


def test_a_portable_graph_in_fewer_bits_has_no_cuda_graph_beside_it(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunUnusable, match="recorded scores would be of one of both alone"):
        export_run(run, tmp_path, variant=Variant(Precision.INT8, examples(run)), cuda=CudaPlan())


def test_a_bundle_that_lists_a_cuda_graph_says_how_it_is_run(run: Path, tmp_path: Path) -> None:
    bundle = export_run(run, tmp_path, cuda=CudaPlan(buckets=(64,)))
    for cuda, graph in ((None, True), (bundle.manifest.cuda, False)):
        files = {name: bundle.path / name for name in bundle.manifest.files if graph or name != CUDA_GRAPH}
        with pytest.raises(CorruptBundle, match=r"says how to run model\.cuda\.onnx or lists it, not both"):
            publish(tmp_path / "other", replace(bundle.manifest, cuda=cuda), files)
