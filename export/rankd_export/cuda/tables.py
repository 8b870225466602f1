"""A graph without its tables: what is inferred of it and rewritten in it reads none of their numbers."""

from __future__ import annotations

import math

import onnx
from onnx import helper

__all__ = ["apart"]

_LARGE = 1 << 18  # numbers of a tensor


def apart(graph: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, onnx.TensorProto]]:
    """Return the graph with its tables as inputs, and the tables: every step would copy them otherwise."""
    tables = {w.name: w for w in graph.graph.initializer if _is_large(w)}
    slim = onnx.ModelProto()
    slim.ir_version = graph.ir_version
    slim.producer_name, slim.producer_version = graph.producer_name, graph.producer_version
    slim.opset_import.extend(graph.opset_import)
    slim.graph.name = graph.graph.name
    slim.graph.node.extend(graph.graph.node)
    slim.graph.input.extend(graph.graph.input)
    slim.graph.output.extend(graph.graph.output)
    slim.graph.initializer.extend(w for w in graph.graph.initializer if w.name not in tables)
    slim.graph.input.extend(
        helper.make_tensor_value_info(name, w.data_type, list(w.dims)) for name, w in tables.items()
    )
    return slim, tables


def _is_large(weight: onnx.TensorProto) -> bool:
    outside = weight.data_location == onnx.TensorProto.EXTERNAL  # in a file, which no step reads
    return outside or math.prod(weight.dims) >= _LARGE
