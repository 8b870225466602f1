"""Requests of any size and of several users score in fixed sizes as in the portable graph."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from bench import stub_cuda
from rankd_contract.cuda_graph import CudaGraph
from rankd_contract.schema_file import parse_schema
from rankd_contract.signature import LOGITS, ROW, SCORES
from rankd_service.errors import BundleRefused
from rankd_service.inference.buckets import Bucketed
from rankd_service.inference.captured import CapturedRuns
from rankd_service.inference.session import GraphSession
from rankd_service.provider import ProviderChoice
from tests.support.bundles import SCHEMA_TEXT, every_input, tensors_for

SCHEMA = parse_schema(SCHEMA_TEXT)
CUDA = CudaGraph("fp32", (4, 16, 64), 1e-5, "1.31.1")
SIZES = [
    (1, 1),
    (1, 3),
    (1, 4),
    (1, 5),
    (1, 64),
    (1, 65),
    (1, 200),
    (2, 2),
    (3, 50),
    (7, 300),
]  # users, candidates


def written(folder: Path, name: str, change: Callable[[onnx.GraphProto], None] = lambda _: None) -> Path:
    graph = every_input(SCHEMA)
    change(graph)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / name)
    return folder / name


def of_one_user(graph: onnx.GraphProto) -> None:
    for value in graph.input:
        if value.name.startswith(("in_user", "in_context")):
            value.type.tensor_type.shape.dim[0].dim_value = 1


def on_cpu(path: Path) -> GraphSession:
    return GraphSession(path, 1, ProviderChoice.CPU)


@pytest.fixture
def portable(tmp_path: Path) -> GraphSession:
    return on_cpu(written(tmp_path, "portable.onnx"))


@pytest.fixture
def bucketed(tmp_path: Path) -> Bucketed:
    return Bucketed(
        CapturedRuns(on_cpu(written(tmp_path, "one.onnx", of_one_user)), CUDA.buckets, "cpu"), CUDA
    )


@pytest.mark.parametrize(("users", "candidates"), SIZES)
def test_scores_are_those_of_the_portable_graph(
    portable: GraphSession, bucketed: Bucketed, users: int, candidates: int
) -> None:
    request = tensors_for(SCHEMA, users, candidates, seed=candidates)
    found = bucketed.run((SCORES, LOGITS), request)
    expected = portable.run((SCORES, LOGITS), request)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_it_takes_what_the_portable_graph_takes(portable: GraphSession, bucketed: Bucketed) -> None:
    assert {(s.name, s.dtype, s.dims[1:]) for s in bucketed.inputs} == {
        (s.name, s.dtype, s.dims[1:]) for s in portable.inputs
    }
    assert {s.dims[0] for s in bucketed.inputs} == {"R", "N"}


def test_a_request_without_candidates_has_no_scores(bucketed: Bucketed) -> None:
    (scores,) = bucketed.run((SCORES,), tensors_for(SCHEMA, 1, 0))
    assert scores.shape == (0, len(SCHEMA.tasks))


def test_scores_are_the_callers_and_nothing_of_the_request_before_is_left(bucketed: Bucketed) -> None:
    first, second = (tensors_for(SCHEMA, 1, n, seed=n) for n in (16, 5))
    (kept,) = bucketed.run((SCORES,), first)
    as_it_was = kept.copy()
    (after,) = bucketed.run((SCORES,), second)
    assert np.array_equal(kept, as_it_was)
    assert np.array_equal(bucketed.run((SCORES,), second)[0], after)


def test_threads_take_turns(portable: GraphSession, bucketed: Bucketed) -> None:
    requests = [tensors_for(SCHEMA, 1, n, seed=n) for n in range(1, 60)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda r: bucketed.run((SCORES,), r)[0], requests))
    for scores, request in zip(found, requests, strict=True):
        np.testing.assert_allclose(scores, portable.run((SCORES,), request)[0], atol=1e-6)


def test_a_graph_for_any_number_of_users_is_taken_too_but_one_of_a_fixed_size_is_refused(
    tmp_path: Path,
) -> None:
    def of_seven(graph: onnx.GraphProto) -> None:
        of_one_user(graph)
        for value in graph.input:
            if value.name == ROW:
                value.type.tensor_type.shape.dim[0].dim_value = 7

    with pytest.raises(BundleRefused, match="in any number; export again"):
        Bucketed(CapturedRuns(on_cpu(written(tmp_path, "seven.onnx", of_seven)), (4,), "cpu"), CUDA)


def test_a_graph_that_cannot_be_run_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    class Broken(CapturedRuns):
        def run(self, bucket: int, *_: object) -> list[np.ndarray]:
            raise RuntimeError("no memory left on the device")

    session = on_cpu(written(tmp_path, "one.onnx", of_one_user))
    with pytest.raises(BundleRefused, match="4 candidates cannot be run on CPUExecutionProvider: no memory"):
        Bucketed(Broken(session, CUDA.buckets, "cpu"), CUDA)


_ON_STUB = """
import ctypes, json, sys
from pathlib import Path
import numpy as np
from rankd_contract.cuda_graph import CudaGraph
from rankd_service.inference.buckets import Bucketed
from rankd_service.inference.captured import CAPTURE, CapturedRuns
from rankd_service.inference.session import GraphSession
from rankd_service.provider import ProviderChoice

library = ctypes.CDLL("libcudart.so.13")
def count(name):
    return ctypes.c_int.in_dll(library, name).value

session = GraphSession(Path(sys.argv[1]), 1, ProviderChoice.REQUIRE_CUDA, CAPTURE)
cuda = CudaGraph("fp32", (4, 16, 64), 1e-5, "")
bucketed = Bucketed(CapturedRuns(session, cuda.buckets, "cuda"), cuda)
loaded = {name: count(name) for name in ("stub_captures", "stub_kernels", "stub_replays")}
with np.load(sys.argv[2]) as file:
    request = dict(file)
shape = bucketed.run(("out_scores",), request)[0].shape
after = {name: count(name) for name in loaded}
print(json.dumps([bucketed.provider, loaded, after, shape]))
"""


@pytest.mark.skipif(stub_cuda.absence() is not None, reason=stub_cuda.absence() or "")
def test_the_cuda_provider_captures_each_bucket_once_and_then_only_replays(tmp_path: Path) -> None:
    graph, request = written(tmp_path, "one.onnx", of_one_user), tensors_for(SCHEMA, 1, 130)
    np.savez(tmp_path / "request.npz", allow_pickle=False, **request)
    out = subprocess.run(
        [sys.executable, "-c", _ON_STUB, str(graph), str(tmp_path / "request.npz")],
        env=stub_cuda.environment(stub_cuda.build(tmp_path)),
        capture_output=True,
        text=True,
        check=True,
    )
    provider, loaded, after, shape = json.loads(out.stdout)
    assert provider == "CUDAExecutionProvider"
    assert loaded["stub_captures"] == after["stub_captures"] == len(CUDA.buckets)
    assert loaded["stub_kernels"] == after["stub_kernels"] > 0
    assert after["stub_replays"] - loaded["stub_replays"] == 3  # pieces of 64, 64 and 2 candidates
    assert shape == [130, len(SCHEMA.tasks)]
