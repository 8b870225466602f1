"""Is a graph its model? What every model's test asks, at every size."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import torch
from torch import nn

from rankd_contract.schema import FeatureSchema
from rankd_export.graph import to_onnx
from rankd_export.parity import Request, compare
from tests.export.requests import random_request

SIZES = ((1, 1), (2, 1), (7, 1), (100, 1), (1000, 1), (2, 2), (7, 3), (100, 3), (1000, 3))  # N and R
LARGE = 4  # a request with enough candidates to tell scores apart


def traced(model: nn.Module, schema: FeatureSchema, *, explain: bool = False) -> onnx.ModelProto:
    """The graph of a model in evaluation mode."""
    example = random_request(schema, 6, 3, seed=1)
    tensors = {name: torch.from_numpy(array) for name, array in example.items()}
    return to_onnx(model, schema, tensors, explain=explain)


def assert_agrees(
    model: nn.Module, graph: onnx.ModelProto, schema: FeatureSchema, more: Sequence[Request] = ()
) -> None:
    """Assert that both say the same of random requests of every size, and of `more`, within 1e-5."""
    requests: list[Request] = [random_request(schema, n, users, seed=n) for n, users in SIZES]
    report = compare(model, graph, [*requests, *more])
    with torch.no_grad():
        large = {name: torch.from_numpy(array) for name, array in requests[LARGE].items()}
        spread = model(large).std().item()
    assert spread > 0.01, "the scores hardly differ, so agreement would prove nothing"
    assert max(size["max_score_error"] for size in report.sizes) <= 1e-5
