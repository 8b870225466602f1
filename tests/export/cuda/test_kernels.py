"""What has no CUDA kernel is named before it is published, and the table says what the runtime does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from bench import stub_cuda
from bench.cuda_kernels import TABLE, table, text
from rankd_export.cuda.kernels import check_kernels, known_kernels
from rankd_export.errors import NoCudaKernel

FLOAT, HALF, BF16 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
INT32, INT64, BOOL = TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL
needs_provider = pytest.mark.skipif(stub_cuda.absence() is not None, reason=stub_cuda.absence() or "")


def one(
    operator: str, *types: int, out: int | None = None, domain: str = "", **attributes: Any
) -> onnx.ModelProto:
    """A graph of one node over [4, 4], with an Identity before it, so that no input is its own."""
    inputs = [helper.make_tensor_value_info(f"in_{k}", t, [4, 4]) for k, t in enumerate(types)]
    nodes = [helper.make_node("Identity", [f"in_{k}"], [f"x_{k}"], name=f"id_{k}") for k in range(len(types))]
    named = [f"x_{k}" for k in range(len(types))]
    nodes.append(helper.make_node(operator, named, ["y"], name="it", domain=domain, **attributes))
    output = helper.make_tensor_value_info("y", out or types[0], None)
    graph = helper.make_graph(nodes, "one", inputs, [output])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


# Operators in types that graphs of this project have, or nearly have.
CASES = {
    "relu": one("Relu", FLOAT),
    "relu of half": one("Relu", HALF),
    "relu of bfloat16": one("Relu", BF16),
    "relu of int32": one("Relu", INT32),
    "add of int32": one("Add", INT32, INT32),
    "add of bool-like int8": one("Add", TensorProto.INT8, TensorProto.INT8),
    "less of int32": one("Less", INT32, INT32, out=BOOL),
    "less of int8": one("Less", TensorProto.INT8, TensorProto.INT8, out=BOOL),
    "where of int32": one("Where", BOOL, INT32, INT32, out=INT32),
    "where of int16": one("Where", BOOL, TensorProto.INT16, TensorProto.INT16, out=TensorProto.INT16),
    "clip of float": one("Clip", FLOAT),
    "clip of int32": one("Clip", INT32),
    "clip of int64": one("Clip", INT64),
    "max of int32": one("Max", INT32, INT32),
    "mod of uint32": one("Mod", TensorProto.UINT32, TensorProto.UINT32),
    "mod of uint8": one("Mod", TensorProto.UINT8, TensorProto.UINT8),
    "gather by int32": one("Gather", FLOAT, INT32),
    "gather by int64": one("Gather", FLOAT, INT64),
    "gather elements": one("GatherElements", FLOAT, INT64),
    "sigmoid": one("Sigmoid", FLOAT),
    "reciprocal of bfloat16": one("Reciprocal", BF16),
    "gelu": one("Gelu", FLOAT),
    "det": one("Det", FLOAT),
    "einsum": one("Einsum", FLOAT, FLOAT, equation="ij,jk->ik"),
    "matmul of bfloat16": one("MatMul", BF16, BF16),
    "matmul of int32": one("MatMul", INT32, INT32),
    "fused matmul": one("FusedMatMul", FLOAT, FLOAT, domain="com.microsoft", transB=1),
    "fused gemm": one("FusedGemm", FLOAT, FLOAT, domain="com.microsoft", activation="Relu"),
    "quick gelu": one("QuickGelu", FLOAT, domain="com.microsoft"),
    "bias gelu": one("BiasGelu", FLOAT, FLOAT, domain="com.microsoft"),
}

_LOAD = """
import json, sys, onnxruntime as ort
verdicts = {}
for name, path in json.load(sys.stdin).items():
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        ort.InferenceSession(path, options, providers=["CUDAExecutionProvider"])
        verdicts[name] = True
    except Exception as error:
        verdicts[name] = False
print(json.dumps(verdicts))
"""


@needs_provider
def test_the_table_says_of_every_node_what_the_runtimes_own_provider_says(tmp_path: Path) -> None:
    device = stub_cuda.build(tmp_path)
    paths = {}
    for k, (name, graph) in enumerate(CASES.items()):
        paths[name] = str(tmp_path / f"{k}.onnx")
        onnx.save(graph, paths[name])
    out = subprocess.run(
        [sys.executable, "-c", _LOAD],
        input=json.dumps(paths),
        env=stub_cuda.environment(device),
        capture_output=True,
        text=True,
        check=True,
    )
    ours = {}
    for name, graph in CASES.items():
        try:
            check_kernels(graph)
            ours[name] = True
        except NoCudaKernel:
            ours[name] = False
    assert ours == json.loads(out.stdout)
    assert {True, False} == set(ours.values())


@pytest.mark.slow
@needs_provider
@pytest.mark.skipif(
    onnxruntime.__version__ != known_kernels().onnxruntime, reason="the table is of another onnxruntime"
)
def test_the_table_is_what_the_installed_provider_registers() -> None:
    assert text(table()) == TABLE.read_text(encoding="utf-8")


def test_a_node_without_a_kernel_is_named_with_its_types_and_what_there_is_instead() -> None:
    with pytest.raises(
        NoCudaKernel, match=r"1 of 2 nodes .*onnxruntime \d.*'it' \(Clip\) over T int32 has no"
    ) as e:
        check_kernels(one("Clip", INT32))
    assert "there are kernels for T double/float/float16/int64" in str(e.value)
    assert "publish it without a CUDA graph" in str(e.value)


def test_what_is_computed_on_the_host_is_refused_though_there_is_a_kernel() -> None:
    sizes = [
        helper.make_node("Shape", ["x"], ["n"], name="size"),
        helper.make_node("Expand", ["one", "n"], ["y"], name="repeat"),
    ]
    one_ = helper.make_tensor("one", FLOAT, [1], [1.0])
    x, y = (helper.make_tensor_value_info(name, FLOAT, ["N"]) for name in "xy")
    graph = helper.make_graph(sizes, "g", [x], [y], [one_])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(
        NoCudaKernel, match=r"'size' \(Shape\) computes on the host.*'repeat' \(Expand\) reads 'n' on the"
    ):
        check_kernels(model)


def test_a_loop_is_refused_since_no_graph_is_captured_with_one() -> None:
    model = one("Relu", FLOAT)
    model.graph.node[-1].op_type = "Loop"
    with pytest.raises(NoCudaKernel, match="has a body"):
        check_kernels(model)


def test_an_operator_that_the_runtime_does_not_know_is_refused() -> None:
    with pytest.raises(NoCudaKernel, match=r"com\.microsoft\.Imagined\) is no operator"):
        check_kernels(one("Imagined", FLOAT, domain="com.microsoft"))
