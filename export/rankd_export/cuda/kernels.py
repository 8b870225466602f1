"""Has the CUDA provider a kernel for every node? Decided as onnxruntime does, from the table of its kernels.

`kernels.json` is read out of the registry of the onnxruntime that it names (`bench/cuda_kernels.py`). What a
kernel reads on the host, such as the shape of a reshape, has to be a constant: computed, it would be computed
on the host, and a captured graph holds nothing of the host's. An operator that the runtime would write out in
others, such as Mish, is refused too: export decides what a device runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, shape_inference
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from rankd_export.cuda.tables import apart
from rankd_export.errors import NoCudaKernel

__all__ = ["Kernels", "check_kernels", "known_kernels", "types_of"]

_TABLE = Path(__file__).with_name("kernels.json")
# Inputs that kernels read on the host, by place.
_ON_HOST: Mapping[str, Sequence[int]] = {
    **dict.fromkeys(("Reshape", "Unsqueeze", "Squeeze", "Expand", "Tile", "Split", "TopK", "CumSum"), (1,)),
    **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2"), (1,)),
    **dict.fromkeys(("Slice", "Resize"), (1, 2, 3, 4)),
    **dict.fromkeys(("Clip", "Pad", "OneHot"), (1, 2)),
    **dict.fromkeys(("ConstantOfShape", "Trilu"), (0,)),
    "Range": (0, 1, 2),
}
# Written to the host: what follows is computed there.
_TO_HOST = frozenset({"Shape", "Size", "NonZero", "SequenceLength"})
_WITH_BODY = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_CONTRIB = "com.microsoft"


@dataclass(frozen=True, slots=True)
class Kernels:
    """A provider's kernels: by domain and operator, first and last opset and the types by parameter."""

    onnxruntime: str
    by_operator: Mapping[str, Mapping[str, Sequence[tuple[int, int | None, Mapping[str, Sequence[str]]]]]]

    def fitting(self, domain: str, operator: str, since: int) -> list[Mapping[str, Sequence[str]]]:
        """Return the types that the kernels of an operator take, as it has been since opset `since`.

        A kernel without a last opset is for the operator as it was at its first one: a later definition
        may mean something else.
        """
        rows = self.by_operator.get(domain, {}).get(operator, ())
        return [
            types
            for first, last, types in rows
            if (first == since if last is None else first <= since <= last)
        ]


@cache
def known_kernels() -> Kernels:
    """Read the table."""
    tree = json.loads(_TABLE.read_text(encoding="utf-8"))
    return Kernels(tree["onnxruntime"], tree["kernels"])


def check_kernels(graph: onnx.ModelProto, kernels: Kernels | None = None) -> None:
    """Raise NoCudaKernel, naming every node that would not run on a CUDA device and what to do about it."""
    found = kernels or known_kernels()
    complaints = list(_complaints(graph, found))
    if complaints:
        raise NoCudaKernel(
            f"{len(complaints)} of {len(graph.graph.node)} nodes would not run on a CUDA device "
            f"(onnxruntime {found.onnxruntime}): {'; '.join(complaints[:5])}"
            f"{'; and more' if complaints[5:] else ''}. Write the model without them, or publish it without "
            "a CUDA graph"
        )


def types_of(graph: onnx.ModelProto) -> dict[str, str]:
    """Return the element type of every value by name, such as `float`; contrib operators keep it."""
    inferred = shape_inference.infer_shapes(apart(graph)[0]).graph
    types = {
        value.name: _name(value.type.tensor_type.elem_type)
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    types.update({weight.name: _name(weight.data_type) for weight in graph.graph.initializer})
    for node in graph.graph.node:
        for name in filter(None, node.output):
            # Inference stops at operators that ONNX does not know, and so for all that follows them.
            if types.get(name, "undefined") == "undefined":
                types[name] = _output_type(node, types)
    return types


def _output_type(node: onnx.NodeProto, types: Mapping[str, str]) -> str:
    if node.op_type == "Cast":
        return _name(next(a.i for a in node.attribute if a.name == "to"))
    if node.op_type in {"Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Not", "And", "Or"}:
        return "bool"
    value = 1 if node.op_type == "Where" else 0
    return types.get(node.input[value], "undefined")


def _complaints(graph: onnx.ModelProto, kernels: Kernels) -> Iterator[str]:
    bodies = [node for node in graph.graph.node if node.op_type in _WITH_BODY]
    if bodies:
        yield from (
            f"{_at(node)} has a body, which no graph can be captured with; unroll it" for node in bodies
        )
        return
    opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in graph.opset_import}
    constants = {weight.name for weight in graph.graph.initializer}
    types = types_of(graph)
    for node in graph.graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        at = _at(node)
        if node.op_type in _TO_HOST:
            yield f"{at} computes on the host with sizes; reshape with -1 and constants in its place"
            continue
        places = [k for k in _ON_HOST.get(node.op_type, ()) if k < len(node.input) and node.input[k]]
        computed = [node.input[k] for k in places if node.input[k] not in constants]
        if computed:
            yield f"{at} reads '{computed[0]}' on the host, where it would have to be a constant"
            continue
        schema = _schema(domain, node.op_type, opsets.get(domain, 1))
        if schema is None:
            yield f"{at} is no operator that onnxruntime knows at opset {opsets.get(domain)}"
            continue
        bound = _bound(schema, node, types)
        fitting = kernels.fitting(domain, node.op_type, schema.since_version)
        if not any(_takes(kernel, bound) for kernel in fitting):
            yield f"{at} over {_words(bound)} has no kernel{_alternatives(fitting, bound)}"


def _at(node: onnx.NodeProto) -> str:
    return f"node '{node.name}' ({f'{node.domain}.' if node.domain else ''}{node.op_type})"


def _bound(schema: Any, node: onnx.NodeProto, types: Mapping[str, str]) -> dict[str, set[str]]:
    """Types by the names that kernels know them by: a type parameter, or a value's formal name."""
    bound: dict[str, set[str]] = {}
    for formal, actual in ((schema.inputs, node.input), (schema.outputs, node.output)):
        for k, name in enumerate(actual):
            if not name or not formal:
                continue
            parameter = formal[min(k, len(formal) - 1)]  # the last one may stand for any number
            for key in (parameter.typeStr, parameter.name):
                bound.setdefault(key, set()).add(types.get(name, "undefined"))
    return bound


def _takes(kernel: Mapping[str, Sequence[str]], bound: Mapping[str, set[str]]) -> bool:
    return all(bound.get(key, set()) <= set(allowed) for key, allowed in kernel.items())


def _words(bound: Mapping[str, set[str]]) -> str:
    return ", ".join(f"{key} {'/'.join(sorted(types))}" for key, types in bound.items() if len(key) <= 2)  # noqa: PLR2004  # type parameters: T, T1


def _alternatives(fitting: Sequence[Mapping[str, Sequence[str]]], bound: Mapping[str, set[str]]) -> str:
    if not fitting:
        return ""
    taken = {key: sorted({t for kernel in fitting for t in kernel.get(key, ())}) for key in fitting[0]}
    refused = {k: t for k, t in taken.items() if not bound.get(k, set()) <= set(t)}
    return "; there are kernels for " + ", ".join(
        f"{key} {'/'.join(types)}" for key, types in (refused or taken).items()
    )


@cache
def _schemas() -> dict[tuple[str, str], list[Any]]:
    found: dict[tuple[str, str], list[Any]] = {}
    for schema in runtime.get_all_operator_schema():
        found.setdefault((schema.domain, schema.name), []).append(schema)
    return found


def _schema(domain: str, operator: str, opset: int) -> Any | None:
    """Return the newest definition that an opset knows."""
    known = [s for s in _schemas().get((domain, operator), ()) if s.since_version <= opset]
    return max(known, key=lambda s: s.since_version, default=None)


def _name(number: int) -> str:
    return TensorProto.DataType.Name(number).lower() if number else "undefined"
