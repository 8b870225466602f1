"""A graph whose products, tables and copies are half or bfloat16; exponentials and logits stay float32.

Narrow is what moves or multiplies most numbers: gathers, matrix products, attentions, normalisations (whose
kernels add up in float32), and plain arithmetic between them. Everything else is wide: exponentials, softmax
and sigmoid, sums and their roots, the arithmetic beside them (so all of entmax), and what makes the logits.

What it costs is found out without a device: `rounded` computes in float32, and rounds every number that
`narrowed` would keep in fewer bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rankd_contract.signature import LOGITS
from rankd_export.cuda.kernels import types_of
from rankd_export.errors import GraphRefused

__all__ = ["Narrow", "narrowed", "rounded"]


class Narrow(Enum):
    """The narrow type."""

    FP16 = "fp16"
    BF16 = "bf16"

    @property
    def onnx(self) -> int:
        """Its number in ONNX."""
        return int(TensorProto.FLOAT16 if self is Narrow.FP16 else TensorProto.BFLOAT16)

    def of(self, numbers: NDArray[np.float32]) -> NDArray[np.generic]:
        """Round to it."""
        kind: np.dtype[np.generic] = np.dtype(np.float16 if self is Narrow.FP16 else ml_dtypes.bfloat16)
        return numbers.astype(kind)


_PRODUCTS = frozenset({"MatMul", "Gemm", "FusedMatMul", "MultiHeadAttention"})
_NORMS = frozenset({"LayerNormalization", "SkipLayerNormalization"})
_MOVES = frozenset(
    {"Gather", "Concat", "Slice", "Split", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Expand"}
)
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Relu", "Max", "Min", "Neg", "Clip", "Where"})
_MAY_BE_NARROW = _PRODUCTS | _NORMS | _MOVES | (_ARITHMETIC - {"Div", "Where"})

Rename = Callable[[str], str]


def narrowed(graph: onnx.ModelProto, kind: Narrow) -> onnx.ModelProto:
    """Return the graph in which narrow numbers are of this type, with the same inputs and outputs.

    Raises GraphRefused where there is nothing to narrow.
    """
    made, types, narrow = _copy(graph)
    nodes = _Nodes(kind, {w.name: w for w in made.graph.initializer})
    in_narrow: set[str] = {o for k in narrow for o in made.graph.node[k].output if types.get(o) == "float"}
    outputs = {v.name for v in made.graph.output}
    for k, node in enumerate(graph.graph.node):
        fresh = onnx.NodeProto()
        fresh.CopyFrom(node)
        for place, name in enumerate(node.input):
            if types.get(name) != "float" or not name:
                continue
            if k in narrow:
                fresh.input[place] = name if name in in_narrow else nodes.cast(name, kind.onnx)
            elif name in in_narrow:
                fresh.input[place] = nodes.cast(name, int(TensorProto.FLOAT))
        nodes.append(fresh)
    assert not in_narrow & outputs, "logits are wide, and scores follow them"
    return nodes.into(made)


def rounded(graph: onnx.ModelProto, kind: Narrow) -> onnx.ModelProto:
    """Return the graph in float32 that rounds what `narrowed` keeps narrow: runs where no kernel does."""
    made, types, narrow = _copy(graph)
    nodes = _Nodes(kind, {w.name: w for w in made.graph.initializer})
    for k, node in enumerate(graph.graph.node):
        fresh = onnx.NodeProto()
        fresh.CopyFrom(node)
        if k in narrow:
            for place, name in enumerate(node.input):
                if types.get(name) == "float":
                    fresh.input[place] = nodes.rounded(name)
        nodes.append(fresh)
        if k in narrow:
            # What wide nodes read of a narrow one was narrow too.
            nodes.round_outputs(fresh, [o for o in node.output if types.get(o) == "float"])
    return nodes.into(made)


class _Nodes:
    """Nodes in their order, with a cast before the first that needs it and constants cast beforehand."""

    def __init__(self, kind: Narrow, weights: dict[str, onnx.TensorProto]) -> None:
        self.kind, self.weights = kind, weights
        self.made: list[onnx.NodeProto] = []
        self.more: dict[str, onnx.TensorProto] = {}
        self.known: dict[tuple[str, int], str] = {}

    def append(self, node: onnx.NodeProto) -> None:
        self.made.append(node)

    def cast(self, name: str, to: int) -> str:
        """-> the name of the value in another type."""
        if (name, to) not in self.known:
            fresh = f"{name}_{TensorProto.DataType.Name(to).lower()}"
            weight = self.weights.get(name)
            if weight is not None:
                self.more[fresh] = numpy_helper.from_array(self.kind.of(numpy_helper.to_array(weight)), fresh)
            else:
                self.made.append(helper.make_node("Cast", [name], [fresh], name=f"cast_{fresh}", to=to))
            self.known[name, to] = fresh
        return self.known[name, to]

    def rounded(self, name: str) -> str:
        """-> the name of the value after a way there and back."""
        if (name, 0) not in self.known:
            fresh = f"{name}_rounded"
            weight = self.weights.get(name)
            if weight is not None:
                there = self.kind.of(numpy_helper.to_array(weight)).astype(np.float32)
                self.more[fresh] = numpy_helper.from_array(there, fresh)
            else:
                self._there_and_back(name, fresh)
            self.known[name, 0] = fresh
        return self.known[name, 0]

    def round_outputs(self, node: onnx.NodeProto, names: Sequence[str]) -> None:
        for place, name in enumerate(node.output):
            if name in names:
                node.output[place] = f"{name}_exact"
                self._there_and_back(f"{name}_exact", name)
                self.known[name, 0] = name

    def _there_and_back(self, name: str, fresh: str) -> None:
        self.made += [
            helper.make_node("Cast", [name], [f"{fresh}_narrow"], to=self.kind.onnx),
            helper.make_node("Cast", [f"{fresh}_narrow"], [fresh], to=int(TensorProto.FLOAT)),
        ]

    def into(self, made: onnx.ModelProto) -> onnx.ModelProto:
        used = {name for node in self.made for name in node.input}
        kept = [w for w in (*self.weights.values(), *self.more.values()) if w.name in used]
        del made.graph.node[:]
        made.graph.node.extend(self.made)
        weights = [onnx.TensorProto.FromString(w.SerializeToString()) for w in kept]
        del made.graph.initializer[:]
        made.graph.initializer.extend(weights)
        return made


def _copy(graph: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str], set[int]]:
    made = onnx.ModelProto()
    made.CopyFrom(graph)
    del made.graph.value_info[:]
    types = types_of(graph)
    wide = _wide(graph, types)
    narrow = {k for k, n in enumerate(graph.graph.node) if k not in wide and _floats(n, types)}
    if not any(graph.graph.node[k].op_type in _PRODUCTS for k in narrow):
        raise GraphRefused(
            "the graph has no matrix product but that of its logits, so fewer bits save nothing"
        )
    return made, types, narrow


def _floats(node: onnx.NodeProto, types: dict[str, str]) -> bool:
    return any(types.get(name) == "float" for name in (*node.input, *node.output))


def _wide(graph: onnx.ModelProto, types: dict[str, str]) -> set[int]:
    nodes = list(graph.graph.node)
    maker = {name: k for k, node in enumerate(nodes) for name in node.output}
    readers: dict[str, list[int]] = {}
    for k, node in enumerate(nodes):
        for name in node.input:
            readers.setdefault(name, []).append(k)
    wide = {k for k, n in enumerate(nodes) if n.op_type not in _MAY_BE_NARROW and _floats(n, types)}
    wide |= set(_making(LOGITS, nodes, maker))
    waiting = list(wide)
    while waiting:
        node = nodes[waiting.pop()]
        before = {maker[name] for name in node.input if name in maker and types.get(name) == "float"}
        after = {k for name in node.output for k in readers.get(name, ()) if types.get(name) == "float"}
        beside = {k for k in before if nodes[k].op_type in _ARITHMETIC}
        beside |= {k for k in after if nodes[k].op_type in _ARITHMETIC | _MOVES}
        waiting += beside - wide
        wide |= beside
    return wide


def _making(name: str, nodes: Sequence[onnx.NodeProto], maker: dict[str, int]) -> Iterator[int]:
    """Nodes back to the products that make a value, these included."""
    if name in maker:
        k = maker[name]
        yield k
        if nodes[k].op_type not in _PRODUCTS:
            for before in nodes[k].input:
                yield from _making(before, nodes, maker)
