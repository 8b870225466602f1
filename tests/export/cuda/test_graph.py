"""The CUDA graph is the portable one, for one user, with nothing left to the host."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from bench import stub_cuda
from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import SCORES
from rankd_export.cuda.graph import to_cuda
from rankd_export.cuda.narrow import Narrow, narrowed
from rankd_export.cuda.operators import placed
from rankd_export.parity import compare
from rankd_training.models import registry
from tests.export.agreement import traced
from tests.export.requests import random_request
from tests.export.test_graph import MIXED, MOVIELENS

EMBEDDING_STD = {"ple": 1.0}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "stacked mlcc": ("mlcc", {"layers": 2}),
    "mc-mlcc": ("mlcc", {"channels": 3}),
    "sparsemax": ("armnet", {"alpha": 2.0}),
    "bisected": ("armnet", {"alpha": 1.7}),
    "armnet plus": ("armnet", {"deep_hidden": (30,)}),
    "infnet v1": ("infnet", {"variant": "v1"}),
    "infnet of heads": ("infnet", {"attention_heads": 4}),
}
FAST = ("mlcc",)
ALL = [
    pytest.param(name, id=name, marks=[] if name in FAST else [pytest.mark.slow])
    for name in (*registry.names(), *VARIANTS)
]


@cache
def graphs_of(name: str, schema: FeatureSchema) -> tuple[torch.nn.Module, onnx.ModelProto, onnx.ModelProto]:
    """The model, its portable graph, its CUDA graph; not to be changed."""
    model_name, settings = VARIANTS.get(name, (name, {}))
    torch.manual_seed(0)
    std = EMBEDDING_STD.get(model_name, 0.5)
    model = registry.build(model_name, schema, {"embedding_std": std, **settings}).eval()
    portable = traced(model, schema)
    return model, portable, to_cuda(portable)


@pytest.mark.parametrize("name", ALL)
def test_scores_are_the_models_at_every_size_and_the_provider_takes_every_node(
    name: str, tmp_path: Path
) -> None:
    model, portable, made = graphs_of(name, MOVIELENS)
    requests = [random_request(MOVIELENS, n, 1, seed=n) for n in (1, 2, 7, 100, 1000)]
    report = compare(model, made, requests)
    assert max(size["max_score_error"] for size in report.sizes) < 2e-6
    assert [v.name for v in made.graph.input] == [v.name for v in portable.graph.input]
    assert [v.name for v in made.graph.output] == [v.name for v in portable.graph.output]
    if stub_cuda.absence() is None:
        graphs = {"fp32": made}
        if name not in {"lr", "fm"}:  # no products
            graphs |= {kind.value: narrowed(made, kind) for kind in Narrow}
        assert refused_by_the_provider(graphs, tmp_path) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlcc", "infnet", "armnet"])
def test_lists_numbers_and_histories_are_no_hindrance(name: str) -> None:
    model, _, made = graphs_of(name, MIXED)
    compare(model, made, [random_request(MIXED, n, 1, seed=n) for n in (1, 33)])


def test_one_user_a_run_and_candidates_in_any_number() -> None:
    _, _, made = graphs_of("mlcc", MOVIELENS)
    first = {
        v.name: v.type.tensor_type.shape.dim[0].dim_param or v.type.tensor_type.shape.dim[0].dim_value
        for v in made.graph.input
    }
    assert {first[name] for name in first if name.startswith(("in_user", "in_context"))} == {1}
    assert {first[name] for name in first if name.startswith(("in_item", "in_row"))} == {"N"}
    assert not any(node.op_type in {"Shape", "Size", "Range"} for node in made.graph.node)


@pytest.mark.slow
def test_contrib_operators_stand_where_the_models_have_what_they_compute() -> None:
    _, _, infnet = graphs_of("infnet", MOVIELENS)
    assert {"FusedMatMul", "MultiHeadAttention", "SkipLayerNormalization"} <= set(placed(infnet))
    masked = [n for n in infnet.graph.node if n.op_type == "MultiHeadAttention" and len(n.input) > 3]
    _, _, mlcc = graphs_of("mlcc", MOVIELENS)
    assert set(placed(mlcc)) == {"FusedMatMul"}
    assert {n.domain for n in (*infnet.graph.node, *mlcc.graph.node)} == {"", "com.microsoft"}
    assert all(a.i == 1 for n in masked for a in n.attribute if a.name == "num_heads")


@pytest.mark.slow
def test_attention_over_padding_is_one_operator_with_a_mask_and_padding_alone_stays_finite() -> None:
    model, _, made = graphs_of("infnet", MIXED)
    masked = [n for n in made.graph.node if n.op_type == "MultiHeadAttention" and len(n.input) > 4]
    assert masked
    request = random_request(MIXED, 20, 1, seed=4)
    ids = request["in_user_ids"]
    ids[:, -4:] = 0  # the whole history
    report = compare(model, made, [request])
    assert report.sizes[0]["max_score_error"] < 1e-6


def test_the_same_graph_is_the_same_bytes() -> None:
    _, graph, first = graphs_of("mlcc", MOVIELENS)
    second = to_cuda(graph)
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


_LOAD = """
import json, sys, onnxruntime as ort
refused = {}
for name, path in json.load(sys.stdin).items():
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        cuda = ("CUDAExecutionProvider", {"enable_cuda_graph": "1", "use_tf32": "0"})
        session = ort.InferenceSession(path, options, providers=[cuda])
        assert session.get_providers()[0] == cuda[0], session.get_providers()
    except Exception as error:
        refused[name] = str(error)
print(json.dumps(refused))
"""


def refused_by_the_provider(graphs: dict[str, onnx.ModelProto], folder: Path) -> dict[str, str]:
    """Which graphs onnxruntime's CUDA provider would leave a node of to the CPU, or could not capture."""
    device = stub_cuda.build(folder)
    paths = {}
    for name, graph in graphs.items():
        paths[name] = str(folder / f"{name}.onnx")
        onnx.save(graph, paths[name])
    out = subprocess.run(
        [sys.executable, "-c", _LOAD],
        input=json.dumps(paths),
        env=stub_cuda.environment(device),
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(out.stdout)
    return found


def test_scores_are_an_output_of_the_graph() -> None:
    _, _, made = graphs_of("mlcc", MOVIELENS)
    assert SCORES in {v.name for v in made.graph.output}
