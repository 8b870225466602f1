"""The form that is served is the model: exact algebra, whatever the settings, users, and empty histories."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rankd_contract.schema_file import parse_schema
from rankd_export.fold import serving_form
from rankd_training.models import registry
from rankd_training.models.folding import Foldable
from tests.export.requests import random_request
from tests.export.test_graph import MIXED
from tests.export.test_infnet import HISTORIES, NO_HISTORY
from tests.training.fields import table_schema

SCHEMAS = {
    "mixed": MIXED,
    "histories": parse_schema(HISTORIES),
    "no history": parse_schema(NO_HISTORY),
    "no users": table_schema(),
}
CASES: list[tuple[str, dict[str, Any], str]] = [
    ("mlcc", {}, "mixed"),
    ("mlcc", {}, "no users"),
    ("mlcc", {"channels": 3, "heads": 2}, "mixed"),
    ("mlcc", {"heads": 16, "dynamic_widths": (4, 1)}, "mixed"),  # wider than the product that repeats
    ("mlcc", {"dynamic_widths": (4, 3, 2), "keep": (0, 1, 2), "cross_activation": "relu"}, "mixed"),
    ("mlcc", {"dynamic_widths": (4, 3, 1), "keep": (1, 2), "cross_activation": "tanh"}, "mixed"),
    ("mlcc", {"dynamic_widths": (1,), "keep": ()}, "mixed"),
    ("mlcc", {"layers": 2, "channels": 2}, "mixed"),
    ("armnet", {}, "mixed"),
    ("armnet", {}, "no users"),
    ("armnet", {"alpha": 1.0, "neurons": 8}, "mixed"),
    ("armnet", {"alpha": 2.0, "heads": 4, "neurons": 8, "key_width": 3}, "mixed"),
    ("armnet", {"alpha": 1.7, "heads": 2, "neurons": 4, "deep_hidden": (20, 10)}, "mixed"),
    ("armnet", {"neurons": 8, "value_range": (0.001, 1.0)}, "mixed"),
    ("infnet", {}, "histories"),
    ("infnet", {}, "no history"),
    ("infnet", {}, "no users"),
    ("infnet", {"attention_heads": 4, "blocks": 3, "extra_sequence_hubs": 2}, "histories"),
    ("infnet", {"blocks": 1}, "histories"),
    ("infnet", {"variant": "v1"}, "histories"),
    ("infnet", {"variant": "v1", "attention_heads": 2, "residual": False}, "histories"),
    ("infnet", {"variant": "v1", "gate_source": "previous", "blocks": 3}, "histories"),
]


def model_of(name: str, settings: dict[str, Any], schema: str) -> nn.Module:
    """A model in float64 whose batch statistics are those of some rows."""
    torch.manual_seed(0)
    model: nn.Module = registry.build(name, SCHEMAS[schema], {"embedding_std": 0.5, **settings})
    model = model.double()
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(part, nn.BatchNorm1d):
            part.momentum = None
    with torch.no_grad():
        model.train()(tensors(schema, 200, 20, seed=9))
    return model.eval()


def tensors(schema: str, candidates: int, users: int, seed: int) -> dict[str, Tensor]:
    users = users if schema != "no users" else 1
    arrays = random_request(SCHEMAS[schema], candidates, users, seed)
    return {k: torch.from_numpy(a) for k, a in arrays.items()}


def wide(features: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: t.double() if t.is_floating_point() else t for k, t in features.items()}


@pytest.mark.parametrize(("name", "settings", "schema"), CASES, ids=str)
def test_folded_and_plain_are_the_same_function(name: str, settings: dict[str, Any], schema: str) -> None:
    model = model_of(name, settings, schema)
    requests = [tensors(schema, n, users, seed=n) for n, users in ((1, 1), (7, 3), (40, 2))]
    if schema == "histories":
        requests[1]["in_user_ids"][0, :6] = 0  # one history is empty
        requests[1]["in_user_ids"][1, :10] = 0  # both are
        requests[1]["in_user_ids"][2, 2:6] = 0  # the end of one is
    assert isinstance(model, Foldable)
    before = {k: t.clone() for k, t in model.state_dict().items()}
    folded: nn.Module = model.folded()
    narrow, plain = deepcopy(model).float(), []
    for features in requests:
        with torch.no_grad():
            expected = model(wide(features))
            torch.testing.assert_close(folded(wide(features)), expected, atol=1e-9, rtol=1e-9)
            plain.append(narrow(features))
    assert all(torch.equal(before[k], t) for k, t in model.state_dict().items()), "the model was changed"
    if (
        name != "armnet"
    ):  # its crosses are normalised by spreads of hundredths, which costs either form digits
        with torch.no_grad():
            for features, expected in zip(requests, plain, strict=True):
                found = torch.sigmoid(serving_form(narrow)(features))
                torch.testing.assert_close(found, torch.sigmoid(expected), atol=1e-6, rtol=0)


def test_folded_armnet_is_as_near_to_the_truth_as_the_plain_one() -> None:
    model = model_of("armnet", {}, "mixed")
    narrow, features = deepcopy(model).float(), tensors("mixed", 500, 1, seed=3)
    with torch.no_grad():
        truth = torch.sigmoid(model(wide(features)))
        plain = (torch.sigmoid(narrow(features)) - truth).abs().max().item()
        folded = (torch.sigmoid(serving_form(narrow)(features)) - truth).abs().max().item()
    assert folded <= max(1e-6, 1.5 * plain)
