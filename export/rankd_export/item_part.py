"""A graph in two: what rests on the item alone, and the rest, so that a service computes an item once.

The cut needs nothing of the model. Every tensor that is made of the item's inputs and of weights, with a row
a candidate, is the same whoever asks; the last of these on each way to the scores are the item's part. All
layers that are linear in the item's fields are before the cut where a model adds the two sides, as the
serving forms do. What the two graphs compute one after the other is what the one graph does, step for step.

An item's part must not depend on the rows beside it; `difference` shows on requests that it does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, shape_inference

from rankd_contract.schema import Entity
from rankd_contract.signature import SCORES, part_name
from rankd_export.work import without_large_weights

__all__ = ["ItemPart", "difference", "split"]

Request = Mapping[str, NDArray[Any]]

_ITEM = f"in_{Entity.ITEM.value}_"
_ROWS = "N"
# Its scale is that of all rows together, so a row is not what it would be alone.
_MIXES_ROWS = frozenset({"DynamicQuantizeLinear"})


@dataclass(frozen=True, slots=True)
class ItemPart:
    """The two graphs. Parts are the first's outputs and inputs of the second, by the same names.

    `numbers` of all parts together are kept an item.
    """

    item: onnx.ModelProto
    rest: onnx.ModelProto
    numbers: int


def split(graph: onnx.ModelProto) -> ItemPart | None:
    """Cut a graph; None where nothing that rests on the item alone has a row a candidate."""
    known = _values(graph)
    item = _of_item(graph)
    constant = _constant(graph)
    made = {name: node for node in graph.graph.node for name in node.output}
    parts: list[str] = []
    seen: set[str] = set()
    ahead = list(made[SCORES].input)  # the scores are the rest's to give, also where no user is asked
    while ahead:
        name = ahead.pop()
        if name in seen or name in constant or name not in made:
            continue
        seen.add(name)
        if name in item and _is_row(known.get(name)):
            parts.append(name)
        else:
            ahead += made[name].input
    if not parts:
        return None
    renamed = {name: part_name(k) for k, name in enumerate(parts)}
    described = [_described(known[name], new) for name, new in renamed.items()]
    inputs = {value.name: value for value in graph.graph.input}
    scores = next(value for value in graph.graph.output if value.name == SCORES)
    return ItemPart(
        item=_between(graph, inputs, described, renamed, stop=()),
        rest=_between(
            graph, {**inputs, **{v.name: v for v in described}}, [scores], renamed, stop=renamed.values()
        ),
        numbers=sum(math.prod(d.dim_value for d in _dims(value)[1:]) for value in described),
    )


def difference(
    item: Path, rest: Path, requests: Sequence[Request], scores: Sequence[NDArray[np.float32]]
) -> float:
    """Score requests with each item's part computed by itself -> the largest difference to these scores."""
    of_item, of_rest = _session(item), _session(rest)
    given, parts = _names(of_item.get_inputs()), _names(of_item.get_outputs())
    worst = 0.0
    for request, expected in zip(requests, scores, strict=True):
        alone = [
            of_item.run(parts, {name: request[name][k : k + 1] for name in given})
            for k in range(len(expected))
        ]
        joined = [np.concatenate(rows) for rows in zip(*alone, strict=True)]
        tensors = {**request, **dict(zip(parts, joined, strict=True))}
        (found,) = of_rest.run([SCORES], {name: tensors[name] for name in _names(of_rest.get_inputs())})
        worst = max(worst, float(np.abs(found - expected).max(initial=0.0)))
    return worst


def _session(graph: Path) -> Any:
    return ort.InferenceSession(graph, providers=["CPUExecutionProvider"])


def _names(nodes: Iterable[Any]) -> list[str]:
    return [node.name for node in nodes]


def _of_item(graph: onnx.ModelProto) -> set[str]:
    """Names of all that is made of the item's inputs and of weights."""
    item = {value.name for value in graph.graph.input if value.name.startswith(_ITEM)}
    constant = _constant(graph)
    for node in graph.graph.node:
        used = [name for name in node.input if name and name not in constant]
        if used and node.op_type not in _MIXES_ROWS and item.issuperset(used):
            item.update(node.output)
    return item


def _constant(graph: onnx.ModelProto) -> set[str]:
    """Names of weights and of what is made of them alone."""
    constant = {weight.name for weight in graph.graph.initializer}
    for node in graph.graph.node:
        if constant.issuperset(filter(None, node.input)):
            constant.update(node.output)
    return constant


def _values(graph: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Types and shapes of all tensors, as far as onnx can tell."""
    inferred = shape_inference.infer_shapes(without_large_weights(graph), data_prop=True).graph
    return {value.name: value for value in (*inferred.input, *inferred.value_info, *inferred.output)}


def _dims(value: onnx.ValueInfoProto) -> list[Any]:
    return list(value.type.tensor_type.shape.dim)


def _is_row(value: onnx.ValueInfoProto | None) -> bool:
    """Whether a tensor has one row a candidate, all of the same size."""
    if value is None or not _dims(value):
        return False
    rows, *others = _dims(value)
    return rows.dim_param == _ROWS and all(dim.dim_value for dim in others)


def _described(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    of = value.type.tensor_type
    return helper.make_tensor_value_info(
        name, of.elem_type, [_ROWS, *(d.dim_value for d in of.shape.dim[1:])]
    )


def _between(
    graph: onnx.ModelProto,
    inputs: Mapping[str, onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    renamed: Mapping[str, str],
    stop: Iterable[str],
) -> onnx.ModelProto:
    """Return the nodes from these inputs to these outputs as a graph, with the weights they use."""
    nodes: list[onnx.NodeProto] = []
    needed, given = {value.name for value in outputs}, set(stop)
    for node in reversed(graph.graph.node):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.output[:] = [renamed.get(name, name) for name in node.output]
        copy.input[:] = [renamed.get(name, name) for name in node.input]
        if needed & set(copy.output) and not given & set(copy.output):
            nodes.append(copy)
            needed.update(copy.input)
    made = onnx.ModelProto()
    made.ir_version, made.producer_name = graph.ir_version, graph.producer_name
    made.opset_import.extend(graph.opset_import)
    made.graph.name = graph.graph.name
    made.graph.node.extend(reversed(nodes))
    made.graph.input.extend(value for name, value in inputs.items() if name in needed)
    made.graph.output.extend(outputs)
    made.graph.initializer.extend(w for w in graph.graph.initializer if w.name in needed)
    return made
