"""Contrib operators with CUDA kernels, put on purpose where a model has what they compute.

Placed here, a graph says itself what a device runs, whatever a runtime's optimiser recognises at load. Each
has a CPU kernel too, so that what is served on a device can be compared with the model on any machine. Left
out: BiasSoftmax, which has none; BiasGelu, FastGelu and QuickGelu, since no model here has a GELU; FusedGemm,
which has no CUDA kernel.

The rules read shapes, so what is rewritten has fixed sizes; they write none into it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import onnx
from onnxscript import ir
from onnxscript.rewriter import RewriteRule, RewriteRuleSet, rewrite

__all__ = ["CONTRIB", "place", "placed"]

CONTRIB = "com.microsoft"
# What attentions add to the scores of padding: the operator's own default, and what `attention.py` has.
_ABSENT = -1e4
_INT32 = int(ir.DataType.INT32)
_TOKENS = 3  # axes of [rows, tokens, width]
_WITHOUT_A_VALUE = frozenset({"Gather", "Concat", "Slice", "Reshape", "Unsqueeze", "Squeeze", "Transpose"})


def place(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph of fixed, inferred sizes with contrib operators in the place of what they compute."""
    model = ir.from_proto(graph)
    for rules in _RULES:  # an attention is one operator; what is left of its products may be another
        model = rewrite(model, pattern_rewrite_rules=rules)
    made: onnx.ModelProto = ir.to_proto(model)
    return made


def placed(graph: onnx.ModelProto) -> Mapping[str, int]:
    """Return how many there are of each contrib operator."""
    return dict(sorted(Counter(n.op_type for n in graph.graph.node if n.domain == CONTRIB).items()))


class _Attention:
    """softmax( Q K^T ) V of one head -> MultiHeadAttention; without a scale, which is in Q's weights."""

    def pattern(self, op: Any, q: Any, k: Any, v: Any) -> Any:
        score = op.MatMul(q, op.Transpose(k, perm=[0, 2, 1]))
        return op.MatMul(op.Softmax(score, axis=-1), v)

    def check(self, _: Any, q: ir.Value, k: ir.Value, v: ir.Value) -> bool:
        return _attends(q, k, v)

    def rewrite(self, op: Any, q: ir.Value, k: ir.Value, v: ir.Value) -> Any:
        return op.MultiHeadAttention(q, k, v, num_heads=1, scale=1.0, _domain=CONTRIB)


class _MaskedAttention:
    """The same over tokens of which some are padding: 1 or 0 each, whose scores lose a fixed number."""

    def pattern(self, op: Any, q: Any, k: Any, v: Any, present: Any, one: Any, absent: Any, axes: Any) -> Any:
        bias = op.Unsqueeze(op.Mul(op.Sub(present, one), absent), axes)
        score = op.Add(op.MatMul(q, op.Transpose(k, perm=[0, 2, 1])), bias)
        return op.MatMul(op.Softmax(score, axis=-1), v)

    def check(
        self,
        _: Any,
        q: ir.Value,
        k: ir.Value,
        v: ir.Value,
        present: ir.Value,
        one: ir.Value,
        absent: ir.Value,
        axes: ir.Value,
    ) -> bool:
        same_rows = _shape(present)[:1] == _shape(k)[:1]
        constants = (_number(one), _number(absent), _number(axes)) == (1.0, -_ABSENT, 1.0)
        return constants and same_rows and _is_zero_or_one(present) and _attends(q, k, v)

    def rewrite(
        self, op: Any, q: ir.Value, k: ir.Value, v: ir.Value, present: ir.Value, **_: ir.Value
    ) -> Any:
        mask = op.Cast(present, to=_INT32)
        return op.MultiHeadAttention(
            q, k, v, None, mask, num_heads=1, scale=1.0, mask_filter_value=_ABSENT, _domain=CONTRIB
        )


class _SkipNorm:
    """LN( x + y ), or LN( x + y + bias ) -> SkipLayerNormalization."""

    def __init__(self, *, biased: bool) -> None:
        self.biased = biased

    def pattern(self, op: Any, x: Any, y: Any, bias: Any, scale: Any, shift: Any) -> Any:
        both = op.Add(x, y)
        if self.biased:
            both = op.Add(both, bias)
        return op.LayerNormalization(both, scale, shift, _allow_other_attributes=True, _outputs=["normal"])

    def check(
        self, _: Any, x: ir.Value, y: ir.Value, normal: ir.Value, bias: ir.Value | None = None, **__: ir.Value
    ) -> bool:
        node = normal.producer()
        assert node is not None
        last = node.attributes.get_int("axis", -1) in {-1, len(_shape(x)) - 1}
        plain = bias is None or (len(_shape(bias)) == 1 and _shape(bias) == _shape(x)[-1:])
        return last and plain and len(_shape(x)) == _TOKENS and _shape(x) == _shape(y)

    def rewrite(
        self,
        op: Any,
        x: ir.Value,
        y: ir.Value,
        scale: ir.Value,
        shift: ir.Value,
        normal: ir.Value,
        bias: ir.Value | None = None,
    ) -> Any:
        node = normal.producer()
        assert node is not None
        epsilon = node.attributes.get_float("epsilon", 1e-5)
        given = [x, y, scale, shift, *([bias] if bias is not None else [])]
        return op.SkipLayerNormalization(*given, epsilon=epsilon, _domain=CONTRIB)


class _TurnedProduct:
    """A product that reads one side with its axes turned -> FusedMatMul, which reads it as it lies."""

    def __init__(self, *, left: bool) -> None:
        self.left = left

    def pattern(self, op: Any, turned: Any, other: Any) -> Any:
        read = op.Transpose(turned, _allow_other_attributes=True, _outputs=["read"])
        return op.MatMul(read, other) if self.left else op.MatMul(other, read)

    def check(self, _: Any, turned: ir.Value, other: ir.Value, read: ir.Value) -> bool:
        return _turn(read) is not None and len(_shape(turned)) == len(_shape(other)) > 1

    def rewrite(self, op: Any, turned: ir.Value, other: ir.Value, read: ir.Value) -> Any:
        turn = _turn(read)
        assert turn is not None
        side, sides = ("A", (turned, other)) if self.left else ("B", (other, turned))
        named = {f"transBatch{side}": turn[0], f"trans{side}": turn[1]}
        return op.FusedMatMul(*sides, **{k: v for k, v in named.items() if v}, _domain=CONTRIB)


def _rule(of: _Attention | _MaskedAttention | _SkipNorm | _TurnedProduct, *, shares: bool) -> RewriteRule:
    """Make a rule; one that shares leaves what it matched to whoever reads it besides."""
    return RewriteRule(of.pattern, of.rewrite, of.check, name=type(of).__name__, remove_nodes=not shares)


_RULES = (
    # Several may read one transposed copy, which goes away with the last of them.
    RewriteRuleSet([_rule(_MaskedAttention(), shares=True), _rule(_Attention(), shares=True)], commute=True),
    RewriteRuleSet([_rule(_SkipNorm(biased=biased), shares=False) for biased in (True, False)], commute=True),
    RewriteRuleSet([_rule(_TurnedProduct(left=left), shares=True) for left in (False, True)]),
)


def _turn(read: ir.Value) -> tuple[int, int] | None:
    """Return a Transpose's order as FusedMatMul has it, transBatch and trans; None if it cannot."""
    node = read.producer()
    assert node is not None
    order = list(node.attributes.get_ints("perm", ()))
    n = len(order)
    if order == [*range(n - 2), n - 1, n - 2]:
        return 0, 1
    if n < _TOKENS:
        return None
    # The first axis goes behind the batch axes: into the place of rows, or of columns.
    return {(*range(1, n - 1), 0, n - 1): (1, 0), (*range(1, n), 0): (1, 1)}.get(tuple(order))


def _attends(q: ir.Value, k: ir.Value, v: ir.Value) -> bool:
    """Three axes each, of the same rows: the operator repeats nothing. Keys and values of one width."""
    shapes = [_shape(x) for x in (q, k, v)]
    return (
        all(len(s) == _TOKENS for s in shapes) and len({s[0] for s in shapes}) == 1 and shapes[1] == shapes[2]
    )


def _is_zero_or_one(value: ir.Value) -> bool:
    """Whether it was a bool, and has only been moved about since."""
    node = value.producer()
    if node is None:
        return False
    if node.op_type == "Cast":
        (given,) = node.inputs
        return given is not None and given.dtype == ir.DataType.BOOL
    if node.op_type not in _WITHOUT_A_VALUE:
        return False
    given_values = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    return all(v is not None and _is_zero_or_one(v) for v in given_values)


def _number(value: ir.Value) -> float | None:
    """Return the one number that a constant holds; None for any other value."""
    constant = value.const_value
    return float(constant.numpy().item()) if constant is not None and constant.size == 1 else None


def _shape(value: ir.Value) -> tuple[int, ...]:
    """Return the sizes; nothing where they are not known."""
    dims = () if value.shape is None else tuple(value.shape)
    return tuple(d for d in dims if isinstance(d, int)) if all(isinstance(d, int) for d in dims) else ()
