"""How many multiply-adds a graph spends: for each candidate, for each user row, and however many there are.

Counted of matrix products, which are nearly all of them, from the shapes that onnx infers for one and two
rows. A model whose user's part stands on user rows shows it here: what it would cost a candidate with every
user's row repeated is the sum of both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import onnx
from onnx import shape_inference

from rankd_contract.schema import Entity
from rankd_export.errors import GraphRefused

__all__ = ["Work", "shapes_at", "without_large_weights", "work_of"]

Shape = Sequence[int]
_ITEM = f"in_{Entity.ITEM.value}_"
# Tensors that decide shapes are short.
_FOR_SHAPES = 64


@dataclass(frozen=True, slots=True)
class Work:
    """Multiply-adds of a request with N candidates and R user rows: N a + R b + c.

    Attributes:
        per_candidate: a.
        per_user: b.
        once: c, products of constants that a runtime may have done beforehand.
        repeated: part of a that reads nothing of the candidate: the user's work, done again for each.
    """

    per_candidate: int
    per_user: int
    once: int
    repeated: int = 0

    @property
    def per_candidate_tiled(self) -> int:
        """What a candidate costs where it brings its user's row along."""
        return self.per_candidate + self.per_user

    def to_json(self) -> dict[str, int]:
        """Return the counts as they stand in the manifest."""
        return {**asdict(self), "per_candidate_tiled": self.per_candidate_tiled}


def work_of(graph: onnx.ModelProto) -> Work:
    """Count. Raises GraphRefused where a product's shape cannot be inferred, or is not linear in the rows."""
    slim = without_large_weights(graph)
    of_item = _after(slim, {v.name for v in graph.graph.input if v.name.startswith(_ITEM)})
    base, more_candidates, more_users, more_of_both = (
        _count(slim, candidates, users) for candidates, users in ((2, 2), (3, 2), (2, 3), (4, 3))
    )
    a, b = sum(more_candidates) - sum(base), sum(more_users) - sum(base)
    if sum(more_of_both) != sum(base) + 2 * a + b:
        raise GraphRefused("the graph's multiply-adds do not grow with candidates and users one by one")
    repeated = sum(
        more - less
        for node, more, less in zip(slim.graph.node, more_candidates, base, strict=True)
        if not of_item & set(node.output)
    )
    return Work(a, b, sum(base) - 2 * a - 2 * b, repeated)


def _after(graph: onnx.ModelProto, names: set[str]) -> set[str]:
    """Names of all that is made of these; a graph's nodes stand in their order."""
    made = set(names)
    for node in graph.graph.node:
        if made & set(node.input):
            made.update(node.output)
    return made


def _count(slim: onnx.ModelProto, candidates: int, users: int) -> list[int]:
    """Multiply-adds of each node."""
    found = shapes_at(slim, candidates, users)
    shapes: dict[str, Shape] = {name: dims for name, (_, dims) in found.items()}
    shapes.update({weight.name: list(weight.dims) for weight in slim.graph.initializer})
    return [_of_node(node, shapes) for node in slim.graph.node]


def shapes_at(slim: onnx.ModelProto, candidates: int, users: int) -> dict[str, tuple[int, list[int]]]:
    """Element type and dimensions of each tensor for so many rows, as far as onnx can tell."""
    sized = onnx.ModelProto()
    sized.CopyFrom(slim)
    for value in (*sized.graph.input, *sized.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = {"N": candidates, "R": users}[dim.dim_param]
    inferred = shape_inference.infer_shapes(sized, data_prop=True).graph
    tensors = {
        value.name: value.type.tensor_type
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    return {name: (t.elem_type, [dim.dim_value for dim in t.shape.dim]) for name, t in tensors.items()}


def _of_node(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    if node.op_type not in {"MatMul", "Gemm", "MatMulInteger", "FusedMatMul"}:
        return 0
    try:
        left, out = shapes[node.input[0]], shapes[node.output[0]]
    except KeyError as error:
        raise GraphRefused(f"{node.name}: the shape of {error} cannot be inferred") from error
    turned = any(a.name == "transA" and a.i for a in node.attribute)
    if not all((*left, *out)):
        raise GraphRefused(f"{node.name}: shapes {list(left)} and {list(out)} are not inferred in full")
    return math.prod(out) * (left[-2] if turned else left[-1])


def without_large_weights(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Inference copies a model as bytes, of which tables are the most; their shapes are all it needs."""
    slim = onnx.ModelProto()
    slim.ir_version = graph.ir_version
    slim.opset_import.extend(graph.opset_import)
    slim.graph.name = graph.graph.name
    slim.graph.node.extend(graph.graph.node)
    slim.graph.input.extend(graph.graph.input)
    slim.graph.output.extend(graph.graph.output)
    for weight in graph.graph.initializer:
        if math.prod(weight.dims) <= _FOR_SHAPES:
            slim.graph.initializer.append(weight)
        else:
            kind = onnx.helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims))
            slim.graph.input.append(kind)
    return slim
