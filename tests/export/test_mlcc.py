"""The exported graph is MLCC in every shape it can take: channels, heads, widths, activations, layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rankd_training.models.mlcc import MLCC, MLCCConfig
from tests.export.agreement import assert_agrees, traced
from tests.export.test_graph import MIXED

VARIANTS: list[dict[str, Any]] = [
    {"channels": 3, "heads": 2},
    {"dynamic_widths": (4, 3, 2), "keep": (0, 1, 2), "cross_activation": "relu"},
    {"dynamic_widths": (3,), "keep": (), "cross_activation": "tanh", "embedding_std": 1.0},
    {"layers": 2},
    {"hidden": (12,), "task_hidden": (8, 4)},
    {"layers": 2, "channels": 2, "residual": False, "embedding_std": 1.0},
]


@pytest.mark.parametrize(
    "settings", [VARIANTS[0], *(pytest.param(v, marks=pytest.mark.slow) for v in VARIANTS[1:])], ids=str
)
def test_graph_and_model_agree_at_every_size(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = MLCC(MIXED, MLCCConfig(**{"embedding_std": 0.5, **settings})).eval()
    graph = traced(model, MIXED)
    assert_agrees(model, graph, MIXED)
