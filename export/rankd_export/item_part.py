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
from onnx import helper

from rankd_contract.schema import Entity
from rankd_contract.score_tolerance import worst_excess
from rankd_contract.signature import SCORES, part_name
from rankd_export.work import shapes_at, without_large_weights

__all__ = ["ItemPart", "difference", "of_item", "split"]

Request = Mapping[str, NDArray[Any]]

_ITEM = f"in_{Entity.ITEM.value}_"
_ROWS = "N"
_SIZES = (5, 7)
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
    rows = _rows(graph)
    item = of_item(graph)
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
        if name in item and name in rows:
            parts.append(name)
        else:
            ahead += made[name].input
    if not parts:
        return None
    renamed = {name: part_name(k) for k, name in enumerate(parts)}
    described = [
        helper.make_tensor_value_info(new, rows[name][0], [_ROWS, *rows[name][1]])
        for name, new in renamed.items()
    ]
    inputs = {value.name: value for value in graph.graph.input}
    scores = next(value for value in graph.graph.output if value.name == SCORES)
    return ItemPart(
        item=_between(graph, inputs, described, renamed, stop=()),
        rest=_between(
            graph, {**inputs, **{v.name: v for v in described}}, [scores], renamed, stop=renamed.values()
        ),
        numbers=sum(math.prod(rows[name][1]) for name in parts),
    )


def difference(
    item: Path,
    rest: Path,
    requests: Sequence[Request],
    scores: Sequence[NDArray[np.float32]],
    tolerance: float,
) -> float:
    """Score requests with each item's part computed by itself -> the largest difference to these scores.

    Infinite where a score is further off than a tolerance allows.
    """
    first, second = _session(item), _session(rest)
    given, parts = _names(first.get_inputs()), _names(first.get_outputs())
    worst = 0.0
    for request, expected in zip(requests, scores, strict=True):
        alone = [
            first.run(parts, {name: request[name][k : k + 1] for name in given}) for k in range(len(expected))
        ]
        joined = [np.concatenate(rows) for rows in zip(*alone, strict=True)]
        tensors = {**request, **dict(zip(parts, joined, strict=True))}
        (found,) = second.run([SCORES], {name: tensors[name] for name in _names(second.get_inputs())})
        off, bound = worst_excess(found, expected, tolerance)
        if not off <= bound:  # so that NaN is refused too
            return math.inf
        worst = max(worst, float(np.abs(found - expected).max(initial=0.0)))
    return worst


def _session(graph: Path) -> Any:
    return ort.InferenceSession(graph, providers=["CPUExecutionProvider"])


def _names(nodes: Iterable[Any]) -> list[str]:
    return [node.name for node in nodes]


def of_item(graph: onnx.ModelProto) -> set[str]:
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


def _rows(graph: onnx.ModelProto) -> dict[str, tuple[int, list[int]]]:
    """Element type and further dimensions of each tensor with one row a candidate, all of the same size.

    Seen at two numbers of candidates: names of dimensions get lost where onnx infers them.
    """
    slim = without_large_weights(graph)
    one, other = (shapes_at(slim, candidates, users=3) for candidates in _SIZES)
    found = {}
    for name, (kind, dims) in one.items():
        again = other[name][1]
        if dims[:1] == [_SIZES[0]] and again == [_SIZES[1], *dims[1:]] and all(dims):
            found[name] = (kind, dims[1:])
    return found


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
