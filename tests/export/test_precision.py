"""A graph in fewer bits is the same function but for the rounding, with the same signature."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from rankd_export.errors import GraphRefused
from rankd_export.graph import check
from rankd_export.parity import run_onnx
from rankd_export.precision import Precision, reduced
from tests.export.agreement import SIZES
from tests.export.requests import random_request
from tests.export.test_graph import MOVIELENS, exported

pytestmark = pytest.mark.slow  # each graph is made twice
# Of a probability, over weights far livelier than trained ones.
NEAR = {Precision.INT8: 0.05, Precision.INT8_EMBEDDINGS: 0.02, Precision.FP16: 0.01}


@pytest.mark.parametrize("precision", list(NEAR), ids=lambda p: p.value)
@pytest.mark.parametrize("name", ["mlcc", "infnet"])
def test_scores_stay_near_at_every_size(name: str, precision: Precision) -> None:
    graph = exported(name, MOVIELENS)
    less = reduced(graph, precision)
    check(less, MOVIELENS)
    requests = [random_request(MOVIELENS, n, users, seed=n) for n, users in SIZES]
    pairs = zip(run_onnx(graph, requests), run_onnx(less, requests), strict=True)
    difference = max(float(np.abs(a - b).max()) for (_, a), (_, b) in pairs)
    assert 0 < difference < NEAR[precision]


def test_float32_is_the_graph_itself() -> None:
    graph = exported("lr", MOVIELENS)
    assert reduced(graph, Precision.FP32) is graph


def test_rows_of_a_table_are_within_half_a_step_and_a_quarter_of_the_size() -> None:
    graph = exported("mlcc", MOVIELENS)
    less = reduced(graph, Precision.INT8_EMBEDDINGS)
    before, after = ({w.name: numpy_helper.to_array(w) for w in g.graph.initializer} for g in (graph, less))
    (name,) = [name for name in before if name.endswith("table.weight")]
    steps, scale = after[f"{name}_int8"], after[f"{name}_scale"]
    assert name not in after
    assert (steps.nbytes + scale.nbytes) / before[name].nbytes == pytest.approx(0.25 + 1 / 16)
    assert (np.abs(steps * scale - before[name]) <= 0.5001 * scale).all()


def test_linear_layers_are_int8_and_gates_that_are_repeated_are_not() -> None:
    less = reduced(exported("mlcc", MOVIELENS), Precision.INT8)
    integer = [node for node in less.graph.node if node.op_type == "MatMulInteger"]
    assert len(integer) >= 4
    weights = {w.name: numpy_helper.to_array(w) for w in less.graph.initializer}
    for node in integer:
        assert weights[node.input[1]].ndim == 2


def test_a_graph_with_nothing_to_reduce_is_refused() -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 2])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 2])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [out])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    for precision, word in ((Precision.INT8, "no linear layer"), (Precision.INT8_EMBEDDINGS, "no embedding")):
        with pytest.raises(GraphRefused, match=word):
            reduced(model, precision)
