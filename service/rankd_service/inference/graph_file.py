"""What a graph file may hold, looked at before a runtime reads it: anybody may have written a bundle.

An export is some hundred nodes of known operators in a straight line, its large tensors in one file beside
it. Whatever else the format allows (operators of others, functions that call functions, loops, files
named by path, tensors of any declared size) is refused here by name. The file is mapped and walked; no tensor
is read, and the walk ends where there is too much of anything.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rankd_service.inference.protobuf import Malformed, Span, fields, packed, signed

__all__ = ["MOST_ELEMENTS", "MOST_NODES", "MOST_PARTS", "GraphError", "check_graph"]

MOST_NODES = 10_000
"""The largest exports have some 400."""
MOST_PARTS = 200_000
"""Nodes, tensors, declared values, attributes and dimensions, in all."""
MOST_ELEMENTS = (1 << 31) - 1
"""Of one tensor: beyond, indices of 32 bits wrap."""
_ONNX, _CONTRIB = ("", "ai.onnx"), "com.microsoft"
# The runtime's own that only compute; others of them read files (EPContext), or hold graphs.
_FUSED = frozenset(
    {
        *(
            "Attention",
            "BiasGelu",
            "BiasSoftmax",
            "DynamicQuantizeMatMul",
            "FastGelu",
            "FusedGemm",
            "FusedMatMul",
        ),
        *("GatherBlockQuantized", "Gelu", "MatMulIntegerToFloat", "MatMulNBits", "MultiHeadAttention"),
        *(
            "PackedMultiHeadAttention",
            "QuickGelu",
            "SkipLayerNormalization",
            "SkipSimplifiedLayerNormalization",
        ),
    }
)
_MOST_TEXT = 4096
# Bytes of one element by ONNX' number of its type; what is not here (text, complex, 4 bits) no export has.
_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}

# Numbers of fields in onnx.proto, by message.
_MODEL_GRAPH, _MODEL_OPSET, _MODEL_TRAINING, _MODEL_FUNCTION = 7, 8, 20, 25
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODE, _GRAPH_TENSOR, _GRAPH_SPARSE = 1, 5, 15
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_TENSOR_OUTSIDE, _TENSOR_LOCATION = 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2


class GraphError(Exception):
    """The graph holds what no export writes; the message says what, and what was expected."""


def check_graph(path: Path, opset: int, apart: Mapping[str, int]) -> None:
    """Check a graph file.

    Args:
        path: the file.
        opset: the manifest's version of the standard operators.
        apart: files that its tensors may lie in, by name, with their sizes in bytes.

    Raises:
        GraphError: it holds what an export never does, or is no graph.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:  # an empty file cannot be mapped
            raise GraphError("the graph is empty; export again") from error
    with mapped:
        try:
            _Walk(mapped, opset, apart).model()
        except Malformed as error:
            raise GraphError(f"the graph is no ONNX graph: {error}; export again") from error


@dataclass(slots=True)
class _Tensor:
    """What is declared of a tensor."""

    name: str = ""
    kind: int = 0
    dims: list[int] = field(default_factory=list)
    stored: int | None = None
    is_outside: bool = False
    place: dict[str, str] = field(default_factory=dict)


class _Walk:
    """One look at a model, part by part."""

    def __init__(self, data: mmap.mmap, opset: int, apart: Mapping[str, int]) -> None:
        self._data, self._opset, self._apart = data, opset, apart
        self._nodes = self._parts = 0

    def model(self) -> None:
        graphs = opsets = 0
        for number, value in fields(self._data, (0, len(self._data))):
            if number in {_MODEL_TRAINING, _MODEL_FUNCTION}:
                what = "training steps" if number == _MODEL_TRAINING else "functions of its own"
                raise GraphError(f"the graph holds {what}; exports for serving have none")
            if number == _MODEL_GRAPH and isinstance(value, tuple):
                graphs += 1
                self._graph(value)
            elif number == _MODEL_OPSET and isinstance(value, tuple):
                opsets += 1
                self._operators(value)
        if not (graphs and opsets):
            raise Malformed("it has no nodes or no operators")

    def _operators(self, span: Span) -> None:
        domain, version = "", 0
        for number, value in fields(self._data, span):
            if number == _OPSET_DOMAIN and isinstance(value, tuple):
                domain = self._text(value)
                self._check_domain(domain)
            elif number == _OPSET_VERSION and isinstance(value, int):
                version = value
        if domain in _ONNX and version != self._opset:
            raise GraphError(f"the graph is of opset {version}, the manifest says {self._opset}")

    def _graph(self, span: Span) -> None:
        for number, value in self._messages(span):
            if number == _GRAPH_NODE:
                self._nodes += 1
                if self._nodes > MOST_NODES:
                    raise GraphError(
                        f"the graph has more than {MOST_NODES:,} nodes; exports have some hundred"
                    )
                self._node(value)
            elif number == _GRAPH_TENSOR:
                self._check(self._tensor(value), is_weight=True)
            elif number == _GRAPH_SPARSE:
                raise GraphError("the graph holds a sparse tensor, which may unpack to any size")

    def _node(self, span: Span) -> None:
        domain = operator = ""
        for number, value in self._messages(span):
            if number == _NODE_DOMAIN:
                domain = self._text(value)
            elif number == _NODE_OPERATOR:
                operator = self._text(value)
            elif number == _NODE_ATTRIBUTE:
                self._attribute(value)
        self._check_domain(domain)
        if domain == _CONTRIB and operator not in _FUSED:
            raise GraphError(
                f"the graph uses the operator {operator[:80]!r} of {_CONTRIB}; of these only fused "
                "computations are served"
            )

    def _attribute(self, span: Span) -> None:
        for number, value in self._messages(span):
            if number in _ATTRIBUTE_GRAPHS:
                raise GraphError("the graph branches or loops (If, Loop, Scan), which may never end")
            if number in _ATTRIBUTE_SPARSE:
                raise GraphError("the graph holds a sparse tensor, which may unpack to any size")
            if number in _ATTRIBUTE_TENSORS:
                self._check(self._tensor(value), is_weight=False)

    def _tensor(self, span: Span) -> _Tensor:
        found = _Tensor()
        for number, value in fields(self._data, span):
            if number == _TENSOR_DIMS:
                for dim in [value] if isinstance(value, int) else packed(self._data, value):
                    self._count()
                    found.dims.append(signed(dim))
            elif number == _TENSOR_TYPE and isinstance(value, int):
                found.kind = value
            elif number == _TENSOR_LOCATION:
                found.is_outside |= bool(value)
            elif isinstance(value, tuple):
                self._told_of_tensor(found, number, value)
        return found

    def _told_of_tensor(self, found: _Tensor, number: int, span: Span) -> None:
        if number == _TENSOR_NAME:
            found.name = self._text(span)
        elif number == _TENSOR_RAW:
            found.stored = span[1] - span[0]
        elif number == _TENSOR_OUTSIDE:
            found.is_outside = True
            entry = {n: self._text(at) for n, at in self._messages(span) if n in {_ENTRY_KEY, _ENTRY_VALUE}}
            found.place[entry.get(_ENTRY_KEY, "")] = entry.get(_ENTRY_VALUE, "")

    def _check(self, found: _Tensor, *, is_weight: bool) -> None:
        at = f"tensor {found.name[:80]!r}"
        if min(found.dims, default=0) < 0 or found.kind not in _BYTES:
            raise GraphError(f"{at}: type {found.kind} of shape {found.dims[:8]} is none that exports have")
        elements = math.prod(found.dims)
        if elements > MOST_ELEMENTS:
            raise GraphError(f"{at} is declared with {elements:,} numbers; {MOST_ELEMENTS:,} is the most")
        size = elements * _BYTES[found.kind]
        if found.is_outside:
            self._check_place(at, found.place, size, is_weight=is_weight)
        elif found.stored is not None and found.stored != size:
            raise GraphError(f"{at} is declared with {size:,} bytes and has {found.stored:,}")

    def _check_place(self, at: str, place: Mapping[str, str], size: int, *, is_weight: bool) -> None:
        location = place.get("location", "")
        if not is_weight or location not in self._apart:
            allowed = ", ".join(self._apart) or "none"
            raise GraphError(f"{at} lies in {location[:80]!r}; files of weights in this bundle: {allowed}")
        try:
            offset, length = int(place.get("offset", "0")), int(place.get("length", str(size)))
        except ValueError as error:
            raise GraphError(f"{at}: offset and length in {location} are no numbers") from error
        whole = self._apart[location]
        if length != size or not 0 <= offset <= whole - length:
            raise GraphError(
                f"{at} takes {size:,} bytes; it is said to lie in {location} ({whole:,} bytes) from "
                f"{offset:,} on, with {length:,}"
            )

    def _check_domain(self, domain: str) -> None:
        if domain not in _ONNX and domain != _CONTRIB:
            raise GraphError(
                f"the graph uses operators of the domain {domain[:80]!r}; only ONNX' own and fused ones of "
                "the runtime are served, so that no bundle brings code"
            )

    def _messages(self, span: Span) -> Iterator[tuple[int, Span]]:
        """Yield the fields that are messages or texts, each of them counted."""
        for number, value in fields(self._data, span):
            self._count()
            if isinstance(value, tuple):
                yield number, value

    def _count(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise GraphError(f"the graph has more than {MOST_PARTS:,} parts; exports have some thousand")

    def _text(self, span: Span) -> str:
        start, end = span
        return self._data[start : min(end, start + _MOST_TEXT)].decode("utf-8", "replace")
