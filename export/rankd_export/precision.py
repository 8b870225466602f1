"""A graph in fewer bits: what may change scores, and so is published only with what it loses (`quality.py`).

- `int8`: matrices of linear layers as int8, activations quantised as they come, a scale a request.
- `int8-embeddings`: rows of embedding tables as int8 with a scale a row; everything after is float32.
- `fp16`: half precision but for what overflows or adds up; made for devices that compute in it.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxscript import ir, optimizer

from rankd_contract.signature import LOGITS
from rankd_export.errors import GraphRefused
from rankd_export.item_part import of_item

__all__ = ["GOLDEN_TOLERANCE", "Precision", "reduced"]


class Precision(Enum):
    """What numbers a graph is made of."""

    FP32 = "fp32"
    INT8 = "int8"
    INT8_EMBEDDINGS = "int8-embeddings"
    FP16 = "fp16"


GOLDEN_TOLERANCE: Mapping[Precision, float] = {
    Precision.FP32: 1e-5,
    # Integer kernels saturate differently on processors without the newer instructions.
    Precision.INT8: 5e-3,
    Precision.INT8_EMBEDDINGS: 1e-5,
    # A processor without half precision computes in float32 and rounds at other places.
    Precision.FP16: 5e-3,
}
"""How far recorded scores may lie from what another machine computes of the same graph."""

# Up to here what depends on constants only is computed beforehand, so that it can be quantised.
_FOLD_ELEMENTS = 1 << 24
_MATRIX = 2
_SMALLEST = 2048
# Exponentials, sums of squares and their roots: half precision overflows, or has no digits left.
_WIDE = (
    *("Exp", "Softmax", "Sigmoid", "LayerNormalization", "ReduceSum", "ReduceMean", "Sqrt", "Reciprocal"),
    *("Div", "Pow", "Log", "BatchNormalization"),
)


def reduced(graph: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """Return the graph in this precision, with the same inputs and outputs; raises GraphRefused."""
    if precision is Precision.FP32:
        return graph
    if precision is Precision.INT8_EMBEDDINGS:
        return _with_small_tables(graph)
    return _quantised(graph) if precision is Precision.INT8 else _halved(graph)


def _copy(graph: onnx.ModelProto) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(graph)
    return made


def _quantised(graph: onnx.ModelProto) -> onnx.ModelProto:
    folded = optimizer.optimize(
        _copy(graph), input_size_limit=_FOLD_ELEMENTS, output_size_limit=_FOLD_ELEMENTS
    )
    assert isinstance(folded, onnx.ModelProto)
    del folded.graph.value_info[:]
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends a step of preparation that this graph has behind it
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "int8.onnx"
            quantize_dynamic(
                folded,
                path,
                op_types_to_quantize=["MatMul", "Gemm"],
                nodes_to_quantize=_linear_layers(folded),
                per_channel=True,
                weight_type=QuantType.QInt8,
            )
            return _signed_as(onnx.load(path), graph)
    finally:
        root.setLevel(level)


def _linear_layers(graph: onnx.ModelProto) -> list[str]:
    """Names of products with a matrix large enough to be worth the rounding of what it is multiplied with.

    Not of those that rest on the item alone: they are computed once an item and kept (`item_part.py`), which
    a scale of all rows together would forbid.
    """
    of_items = of_item(graph)
    weights = {weight.name: weight for weight in graph.graph.initializer}
    found = []
    for node in graph.graph.node:
        weight = weights.get(node.input[1]) if node.op_type in {"MatMul", "Gemm"} else None
        # A matrix of zeros and ones repeats numbers; what it is given are often gates, which must stay exact.
        if weight is None or len(weight.dims) != _MATRIX or math.prod(weight.dims) < _SMALLEST:
            continue
        if of_items.issuperset(node.output):
            continue
        if not np.isin(numpy_helper.to_array(weight), (0.0, 1.0)).all():
            found += [node.name, f"{node.name}_MatMul"]  # the quantiser makes the second of a Gemm
    if not found:
        raise GraphRefused("the graph has no linear layer that is large enough to be worth int8")
    return found


def _halved(graph: onnx.ModelProto) -> onnx.ModelProto:
    made = convert_float_to_float16(
        _copy(graph),
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_WIDE],
        node_block_list=_after_logits(graph),  # exp(-logit) of a rare event is no half
    )
    # The converter casts an output once for each that reads it, under one name, and inputs after their use.
    by_output = {tuple(node.output): node for node in made.graph.node}
    nodes = list(by_output.values())
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    ordered = ir.from_proto(made)
    ordered.graph.sort()
    return _signed_as(ir.to_proto(ordered), graph)


def _after_logits(graph: onnx.ModelProto) -> list[str]:
    """Names of the nodes that make something of the logits."""
    made, names = {LOGITS}, []
    for node in graph.graph.node:
        if made.intersection(node.input):
            made.update(node.output)
            names.append(node.name)
    return names


def _with_small_tables(graph: onnx.ModelProto) -> onnx.ModelProto:
    made = _copy(graph)
    weights = {weight.name: weight for weight in made.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    tables: dict[str, onnx.TensorProto] = {}
    for node in made.graph.node:
        table = weights.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or table.data_type != TensorProto.FLOAT or len(table.dims) != _MATRIX:
            nodes.append(node)
            continue
        tables[table.name] = table
        read, scale, wide = (f"{node.output[0]}_{part}" for part in ("int8", "scale", "wide"))
        nodes += [
            helper.make_node("Gather", [f"{table.name}_int8", node.input[1]], [read], axis=0),
            helper.make_node("Gather", [f"{table.name}_scale", node.input[1]], [scale], axis=0),
            helper.make_node("Cast", [read], [wide], to=TensorProto.FLOAT),
            helper.make_node("Mul", [wide, scale], [node.output[0]], name=node.name),
        ]
    if not tables:
        raise GraphRefused("the graph reads no embedding table, so there is nothing to keep as int8")
    kept = [weight for name, weight in weights.items() if name not in tables]
    for name, table in tables.items():
        steps, row_scale = _by_row(numpy_helper.to_array(table))
        kept += [
            numpy_helper.from_array(steps, f"{name}_int8"),
            numpy_helper.from_array(row_scale, f"{name}_scale"),
        ]
    del made.graph.node[:], made.graph.initializer[:], made.graph.value_info[:]
    made.graph.node.extend(nodes)
    made.graph.initializer.extend(kept)
    return _signed_as(made, graph)


def _by_row(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """-> int8 [rows, E] and float32 [rows, 1], whose product is within half a step of each number."""
    scale = np.abs(table).max(axis=1, keepdims=True) / 127
    steps = np.rint(np.divide(table, scale, where=scale > 0, out=np.zeros_like(table)))
    return steps.astype(np.int8), scale.astype(np.float32)


def _signed_as(made: onnx.ModelProto, graph: onnx.ModelProto) -> onnx.ModelProto:
    """Give it the graph's own inputs and outputs, whose names of dimensions tools lose, and check it."""
    for ours, theirs in ((graph.graph.input, made.graph.input), (graph.graph.output, made.graph.output)):
        if [v.name for v in ours] != [v.name for v in theirs]:
            raise GraphRefused("the reduced graph has other inputs or outputs than the one it was made of")
        del theirs[:]
        theirs.extend(ours)
    del made.graph.value_info[:]  # of the numbers before
    onnx.checker.check_model(made, full_check=True)
    return made
