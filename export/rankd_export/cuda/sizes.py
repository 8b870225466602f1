"""Takes out of a graph what computes with the number of candidates, which would run on the host.

- Reading the rows 0 to n - 1 of n rows in their order is those rows.
- A number repeated to the size of what it meets is that number: arithmetic repeats it by itself.

Both are found by shapes, of a graph whose number of candidates is one that no other size is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx
from onnx import numpy_helper, shape_inference

__all__ = ["without_sizes"]

_REPEATING = frozenset(
    {"Add", "Sub", "Mul", "Div", "Max", "Min", "Where", "Less", "Greater", "GreaterOrEqual"}
)
_AS_THEY_ARE = frozenset({"Reshape", "Cast", "Identity", "Unsqueeze", "Squeeze"})

Shapes = Mapping[str, tuple[int, ...]]


def without_sizes(sized: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph of fixed, inferred sizes without such nodes, nor those that only they read."""
    nodes = list(sized.graph.node)
    shapes = _shapes(sized)
    maker = {name: node for node in nodes for name in node.output}
    numbers = {w.name: numpy_helper.to_array(w) for w in sized.graph.initializer if math.prod(w.dims) == 1}
    instead: dict[str, str] = {}
    for node in nodes:
        if node.op_type == "Gather" and _reads_all(node, shapes, maker, numbers):
            instead[node.output[0]] = node.input[0]
        if (
            node.op_type == "Expand"
            and node.input[0] in numbers
            and _is_repeated_anyway(node.output[0], nodes, shapes)
        ):
            instead[node.output[0]] = node.input[0]
    if not instead:
        return sized
    made = onnx.ModelProto()
    made.CopyFrom(sized)
    for node in made.graph.node:
        for place, name in enumerate(node.input):
            while name in instead:
                name = instead[name]  # noqa: PLW2901  # what stands for it may have gone too
            node.input[place] = name
    _remove_unread(made)
    del made.graph.value_info[:]
    return shape_inference.infer_shapes(made, data_prop=True)  # what was read through is known now


def _reads_all(
    node: onnx.NodeProto, shapes: Shapes, maker: Mapping[str, onnx.NodeProto], numbers: Mapping[str, object]
) -> bool:
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    rows = shapes.get(node.input[0], ())[:1]
    index = _behind(node.input[1], maker)
    if axis != 0 or not rows or index is None or index.op_type != "Range":
        return False
    start, limit, step = index.input
    size = _behind(limit, maker)
    if size is None or size.op_type != "Shape" or shapes.get(size.input[0], ())[:1] != rows:
        return False
    first = {a.name: a.i for a in size.attribute}
    return (
        numbers.get(start) == 0
        and numbers.get(step) == 1
        and (first.get("start", 0), first.get("end")) == (0, 1)
    )


def _behind(name: str, maker: Mapping[str, onnx.NodeProto]) -> onnx.NodeProto | None:
    """Return the node that makes a value, past those that only give it another shape or type."""
    node = maker.get(name)
    while node is not None and node.op_type in _AS_THEY_ARE:
        node = maker.get(node.input[0])
    return node


def _is_repeated_anyway(name: str, nodes: list[onnx.NodeProto], shapes: Shapes) -> bool:
    """Whether all that read a value would have the same of a single number, they or what follows them."""
    readers = [node for node in nodes if name in node.input]
    return bool(readers) and all(
        reader.op_type in _REPEATING
        and (
            any(shapes.get(other) == shapes.get(reader.output[0]) for other in reader.input if other != name)
            or _is_repeated_anyway(reader.output[0], nodes, shapes)
        )
        for reader in readers
    )


def _shapes(sized: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    return {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in (*sized.graph.input, *sized.graph.value_info, *sized.graph.output)
        if all(d.HasField("dim_value") for d in value.type.tensor_type.shape.dim)
    }


def _remove_unread(made: onnx.ModelProto) -> None:
    read = {value.name for value in made.graph.output}
    kept = []
    for node in reversed(made.graph.node):
        if read & set(node.output):
            kept.append(node)
            read.update(node.input)
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in reversed(kept)]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
