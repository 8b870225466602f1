"""The exported graph is ARM-Net in every variant, at every size, without the operators that serve badly."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rankd_contract.schema import FeatureSchema
from rankd_export.graph import to_onnx
from rankd_export.parity import compare
from rankd_training.models.armnet import ARMNet, ARMNetConfig
from tests.export.requests import random_request
from tests.export.test_graph import MIXED, MOVIELENS, SIZES

VARIANTS: list[dict[str, Any]] = [
    {"alpha": 1.0},
    {"alpha": 1.5, "neurons": 128},
    {"alpha": 2.0, "heads": 8, "neurons": 32},
    {"alpha": 1.7, "heads": 4, "neurons": 4},
    {"alpha": 1.5, "heads": 4, "neurons": 4, "deep_hidden": (300, 300)},
    {"alpha": 2.0, "neurons": 8, "deep_hidden": (100,), "value_range": (0.001, 1.0)},
]


@pytest.mark.parametrize("schema", [MOVIELENS, MIXED], ids=lambda schema: schema.name)
@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_graph_and_model_agree_at_every_size(settings: dict[str, Any], schema: FeatureSchema) -> None:
    torch.manual_seed(0)
    model = ARMNet(schema, ARMNetConfig(**{"embedding_std": 0.5, **settings})).eval()
    example = random_request(schema, 6, 3, seed=1)
    graph = to_onnx(model, schema, {name: torch.from_numpy(array) for name, array in example.items()})
    assert not {"TopK", "Loop", "Scan", "If", "Einsum"} & {node.op_type for node in graph.graph.node}
    requests = [random_request(schema, n, users, seed=n) for n, users in SIZES]
    report = compare(model, graph, requests)
    with torch.no_grad():
        spread = model({k: torch.from_numpy(a) for k, a in requests[4].items()}).std().item()
    assert spread > 0.01, "the scores hardly differ, so agreement would prove nothing"
    assert max(size["max_score_error"] for size in report.sizes) <= 1e-5
