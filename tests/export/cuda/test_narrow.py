"""Fewer bits where most numbers are; the rest in float32; what it costs is found on a CPU."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from rankd_contract.signature import LOGITS
from rankd_export.cuda.graph import to_cuda
from rankd_export.cuda.kernels import check_kernels, types_of
from rankd_export.cuda.narrow import Narrow, narrowed, rounded
from rankd_export.errors import GraphRefused
from rankd_export.parity import run_onnx
from rankd_training.models import registry
from tests.export.agreement import traced
from tests.export.requests import random_request
from tests.export.test_graph import MOVIELENS

MODELS = [
    "mlcc",
    pytest.param("infnet", marks=pytest.mark.slow),
    pytest.param("armnet", marks=pytest.mark.slow),
]
NARROW_TYPES = {"float16", "bfloat16"}


@cache
def portable(name: str) -> bytes:
    torch.manual_seed(0)
    model = registry.build(name, MOVIELENS, {"embedding_std": 0.5}).eval()
    made: bytes = traced(model, MOVIELENS).SerializeToString()
    return made


def graph(name: str) -> onnx.ModelProto:
    made: onnx.ModelProto = onnx.ModelProto.FromString(portable(name))
    return made


@pytest.mark.parametrize("kind", list(Narrow), ids=lambda kind: kind.value)
@pytest.mark.parametrize("name", MODELS)
def test_products_and_tables_are_narrow_exponentials_sums_and_logits_are_not(name: str, kind: Narrow) -> None:
    made = narrowed(to_cuda(graph(name)), kind)
    check_kernels(made)
    types = types_of(made)
    by_operator: dict[str, set[str]] = {}
    for node in made.graph.node:
        by_operator.setdefault(node.op_type, set()).add(types[node.input[0]])
    for operator in (
        "Exp",
        "Softmax",
        "Sigmoid",
        "ReduceSum",
        "Sqrt",
        "Div",
        "Reciprocal",
        "BatchNormalization",
    ):
        assert not by_operator.get(operator, set()) & NARROW_TYPES, operator
    assert by_operator["Gemm"] & NARROW_TYPES
    assert by_operator["Gather"] & NARROW_TYPES
    logits = next(n for n in made.graph.node if LOGITS in n.output)
    assert types[logits.input[0]] == types[LOGITS] == "float"
    (table,) = [
        w
        for w in made.graph.initializer
        if w.name.startswith("model.embedding.table") or (len(w.dims) == 2 and w.dims[0] > 2000)
    ]
    assert table.data_type == kind.onnx


@pytest.mark.parametrize("name", MODELS)
def test_half_on_this_machine_is_as_near_as_its_rounding_says(name: str) -> None:
    requests = [random_request(MOVIELENS, n, 1, seed=n) for n in (1, 50)]
    full = run_onnx(graph(name), requests)
    half = run_onnx(narrowed(to_cuda(graph(name)), Narrow.FP16), requests)
    said = run_onnx(rounded(graph(name), Narrow.FP16), requests)
    off, expected = (
        max(np.abs(a - b).max() for (_, a), (_, b) in zip(full, x, strict=True)) for x in (half, said)
    )
    assert 0 < off < 5e-3
    assert off / 4 < expected < off * 4


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_rounds_eight_times_as_coarsely_as_half(name: str) -> None:
    requests = [random_request(MOVIELENS, 200, 1, seed=7)]
    ((_, full),) = run_onnx(graph(name), requests)
    coarse, fine = (
        float(np.abs(run_onnx(rounded(graph(name), kind), requests)[0][1] - full).max())
        for kind in (Narrow.BF16, Narrow.FP16)
    )
    assert 2 < coarse / fine < 32


def test_rounding_keeps_the_signature_for_any_number_of_users() -> None:
    made = rounded(graph("mlcc"), Narrow.BF16)
    assert [v.SerializeToString() for v in made.graph.input] == [
        v.SerializeToString() for v in graph("mlcc").graph.input
    ]
    assert all(w.data_type != TensorProto.BFLOAT16 for w in made.graph.initializer)
    run_onnx(made, [random_request(MOVIELENS, 10, 3, seed=1)])


def test_a_graph_with_nothing_to_narrow_is_refused() -> None:
    with pytest.raises(GraphRefused, match="fewer bits save nothing"):
        narrowed(to_cuda(graph("lr")), Narrow.FP16)
