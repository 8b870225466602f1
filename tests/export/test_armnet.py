"""The exported graph is ARM-Net in every variant, at every size, without the operators that serve badly."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch

from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import FIELD_WEIGHTS
from rankd_export.errors import GraphRefused, ParityFailed
from rankd_export.graph import to_onnx
from rankd_export.parity import compare, run_onnx
from rankd_training.models import registry
from rankd_training.models.armnet import ARMNet, ARMNetConfig
from tests.export.agreement import SIZES, assert_agrees, traced
from tests.export.requests import random_request
from tests.export.test_graph import MIXED, MOVIELENS

VARIANTS: list[dict[str, Any]] = [
    {"alpha": 1.0},
    {"alpha": 1.5, "neurons": 128},
    {"alpha": 2.0, "heads": 8, "neurons": 32},
    {"alpha": 1.7, "heads": 4, "neurons": 4},
    {"alpha": 1.5, "heads": 4, "neurons": 4, "deep_hidden": (300, 300)},
    {"alpha": 2.0, "neurons": 8, "deep_hidden": (100,), "value_range": (0.001, 1.0)},
]


@pytest.mark.parametrize(
    "schema",
    [pytest.param(MOVIELENS, id="movielens"), pytest.param(MIXED, id="mixed", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(
    "settings",
    [VARIANTS[1], *(pytest.param(v, marks=pytest.mark.slow) for v in VARIANTS if v != VARIANTS[1])],
    ids=str,
)
def test_graph_and_model_agree_at_every_size(settings: dict[str, Any], schema: FeatureSchema) -> None:
    torch.manual_seed(0)
    model = ARMNet(schema, ARMNetConfig(**{"embedding_std": 0.5, **settings})).eval()
    graph = traced(model, schema)
    assert not {"TopK", "Loop", "Scan", "If", "Einsum"} & {node.op_type for node in graph.graph.node}
    assert_agrees(model, graph, schema)


@pytest.mark.parametrize(
    "settings",
    [VARIANTS[1], *(pytest.param(VARIANTS[k], marks=pytest.mark.slow) for k in (2, 4))],
    ids=str,
)
def test_a_graph_that_explains_gives_the_models_weights_and_the_same_scores(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = ARMNet(MIXED, ARMNetConfig(**{"embedding_std": 0.5, **settings})).eval()
    example = {k: torch.from_numpy(a) for k, a in random_request(MIXED, 6, 3, seed=1).items()}
    plain, explained = (to_onnx(model, MIXED, example, explain=explain) for explain in (False, True))
    requests = [random_request(MIXED, n, users, seed=n) for n, users in SIZES]
    compare(model, explained, requests)
    for (_, scores), (_, same) in zip(run_onnx(plain, requests), run_onnx(explained, requests), strict=True):
        np.testing.assert_allclose(scores, same, atol=1e-6)
    (output,) = [v for v in explained.graph.output if v.name == FIELD_WEIGHTS]
    dims = [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim]
    assert dims == ["N", 5, model.neurons.num_neurons]
    assert FIELD_WEIGHTS not in {v.name for v in plain.graph.output}


def test_wrong_weights_beside_right_scores_fail_parity() -> None:
    torch.manual_seed(0)
    model = ARMNet(MIXED, ARMNetConfig(embedding_std=0.5, neurons=4)).eval()
    example = {k: torch.from_numpy(a) for k, a in random_request(MIXED, 6, 3, seed=1).items()}
    graph = to_onnx(model, MIXED, example, explain=True)
    (maker,) = [node for node in graph.graph.node if FIELD_WEIGHTS in node.output]
    maker.output[list(maker.output).index(FIELD_WEIGHTS)] = "true_weights"
    for node in graph.graph.node:  # scores go on from the true ones
        node.input[:] = ["true_weights" if name == FIELD_WEIGHTS else name for name in node.input]
    graph.graph.node.append(onnx.helper.make_node("Neg", ["true_weights"], [FIELD_WEIGHTS]))
    with pytest.raises(ParityFailed, match="what scores are made of"):
        compare(model, graph, [random_request(MIXED, 7, 1, seed=3)])


def test_a_model_that_cannot_explain_is_not_asked_to() -> None:
    model = registry.build("lr", MIXED, {}).eval()
    example = {k: torch.from_numpy(a) for k, a in random_request(MIXED, 6, 3, seed=1).items()}
    with pytest.raises(GraphRefused, match="LogisticRegression cannot say what a score was made of"):
        to_onnx(model, MIXED, example, explain=True)
