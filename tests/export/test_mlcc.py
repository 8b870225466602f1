"""The exported graph is MLCC in every shape it can take: channels, heads, widths, activations, layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rankd_export.graph import to_onnx
from rankd_export.parity import compare
from rankd_training.models.mlcc import MLCC, MLCCConfig
from tests.export.requests import random_request
from tests.export.test_graph import MIXED, SIZES

VARIANTS: list[dict[str, Any]] = [
    {"channels": 3, "heads": 2},
    {"dynamic_widths": (4, 3, 2), "keep": (0, 1, 2), "cross_activation": "relu"},
    {"dynamic_widths": (3,), "keep": (), "cross_activation": "tanh", "embedding_std": 1.0},
    {"layers": 2},
    {"layers": 2, "channels": 2, "residual": False, "embedding_std": 1.0},
]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_graph_and_model_agree_at_every_size(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = MLCC(MIXED, MLCCConfig(**{"embedding_std": 0.5, **settings})).eval()
    example = random_request(MIXED, 6, 3, seed=1)
    graph = to_onnx(model, MIXED, {name: torch.from_numpy(array) for name, array in example.items()})
    requests = [random_request(MIXED, n, users, seed=n) for n, users in SIZES]
    report = compare(model, graph, requests)
    with torch.no_grad():
        spread = model({k: torch.from_numpy(a) for k, a in requests[4].items()}).std().item()
    assert spread > 0.01, "the scores hardly differ, so agreement would prove nothing"
    assert max(size["max_score_error"] for size in report.sizes) <= 1e-5
