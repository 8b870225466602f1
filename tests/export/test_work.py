"""Multiply-adds are counted as the algebra says, and no model does the user's work once a candidate."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import Tensor, nn

from rankd_contract.schema_file import parse_schema
from rankd_export.graph import to_onnx
from rankd_export.work import Work, work_of
from rankd_training.models import registry
from tests.export.requests import random_request
from tests.export.test_graph import MIXED
from tests.export.test_infnet import HISTORIES


class TwoSided(nn.Module):
    """A matrix [2, 3] a side, and one [3, 1] over their sum; tiled: the user's on every candidate."""

    def __init__(self, *, tiled: bool) -> None:
        super().__init__()
        self.tiled = tiled
        self.user, self.item, self.out = nn.Linear(2, 3), nn.Linear(2, 3), nn.Linear(3, 1)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        user, item = features["in_user_values"].repeat(1, 2), features["in_item_values"].repeat(1, 2)
        row = features["in_row"]
        mine = self.user(user.index_select(0, row)) if self.tiled else self.user(user).index_select(0, row)
        out: Tensor = self.out(torch.relu(mine + self.item(item)))
        return out


@pytest.mark.parametrize(("tiled", "expected"), [(False, Work(9, 6, 0, 0)), (True, Work(15, 0, 0, 6))])
def test_work_is_counted_by_what_it_grows_with(tiled: bool, expected: Work) -> None:
    example = {k: torch.from_numpy(a) for k, a in random_request(MIXED, 6, 3, seed=1).items()}
    graph: onnx.ModelProto = to_onnx(TwoSided(tiled=tiled), MIXED, example)
    assert work_of(graph) == expected


@pytest.mark.slow
def test_histories_are_projected_once_a_user() -> None:
    schema = parse_schema(HISTORIES)
    torch.manual_seed(0)
    model = registry.build("infnet", schema, {}).eval()
    example = {k: torch.from_numpy(a) for k, a in random_request(schema, 6, 3, seed=1).items()}
    folded, plain = (work_of(to_onnx(model, schema, example, fold=fold)) for fold in (True, False))
    assert folded.repeated == 0
    assert folded.per_candidate < plain.per_candidate
