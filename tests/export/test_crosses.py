"""A schema's crosses in the graph: the model's scores at every size, the contract's rows for any id."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from rankd_contract.crosses import cross_ids
from rankd_contract.schema import UNKNOWN
from rankd_contract.schema_file import parse_schema
from rankd_contract.signature import FIELD_WEIGHTS, inputs, slot_names
from rankd_export.graph import to_onnx
from rankd_export.parity import run_onnx
from rankd_training.models import registry
from rankd_training.models.logistic import LogisticConfig, LogisticRegression
from tests.export.agreement import assert_agrees
from tests.export.requests import random_request
from tests.training.fields import crossed_schema

SCHEMA = crossed_schema()
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "mlcc": ("mlcc", {}),
    "dcnv2": ("dcnv2", {}),
    "infnet v1": ("infnet", {"variant": "v1"}),
    "infnet v2": ("infnet", {"variant": "v2"}),
    "armnet": ("armnet", {}),
    "optinter": ("optinter", {"methods": ["user_id*item_id=memorise", "age*hour=factorise"]}),
}


WIDE = 100_000
WIDE_SCHEMA = f"""
rankd_schema: 1
name: wide
views:
  - name: who
    entity: user
    key: u
    fields: [{{name: user, kind: categorical, dtype: int64, hash: {WIDE}}}]
  - name: what
    entity: item
    key: i
    fields: [{{name: item, kind: categorical, dtype: int64, hash: {WIDE}}}]
crosses: [{{name: both, of: [user, item], rows: 50000}}]
tasks: [{{name: click}}]
"""


@cache
def lively(name: str) -> nn.Module:
    torch.manual_seed(0)
    architecture, settings = MODELS[name]
    return registry.build(architecture, SCHEMA, {"embedding_std": 0.5, **settings}).eval()


def exported(model: nn.Module, *, explain: bool = False) -> onnx.ModelProto:
    example = {k: torch.from_numpy(a) for k, a in random_request(SCHEMA, 6, 3, seed=1).items()}
    return to_onnx(model, SCHEMA, example, explain=explain)


@pytest.mark.parametrize(
    "name",
    [n if n in {"mlcc", "dcnv2"} else pytest.param(n, marks=pytest.mark.slow) for n in MODELS],
)
def test_graph_and_model_agree_at_every_size(name: str) -> None:
    model = lively(name)
    graph = exported(model, explain=name == "armnet")
    assert [value.name for value in graph.graph.input] == [spec.name for spec in inputs(SCHEMA)]
    assert_agrees(model, graph, SCHEMA)
    for output in graph.graph.output:
        if output.name == FIELD_WEIGHTS:  # a weight for each cross, too
            assert output.type.tensor_type.shape.dim[1].dim_value == sum(map(len, slot_names(SCHEMA))) == 12


def test_the_runtime_reads_the_row_that_the_contract_names() -> None:
    schema = parse_schema(WIDE_SCHEMA)
    model = LogisticRegression(schema, LogisticConfig()).eval()
    (cross,) = schema.crosses
    rows = model.embedding.rows_of(cross.name)
    with torch.no_grad():  # a cross's weight is its id
        model.embedding.table.weight[rows] = torch.arange(rows.stop - rows.start).float().unsqueeze(1)
    example = {k: torch.from_numpy(a) for k, a in random_request(schema, 6, 3, seed=1).items()}
    graph = to_onnx(model, schema, example)

    request = random_request(schema, 4000, 5, seed=3)
    request["in_user_ids"][:, 0] = [0, 1, 2, WIDE + 1, 77]
    wild = [0, 1, 2, WIDE + 1, WIDE + 2, -1, -(2**31), 2**31 - 1]
    request["in_item_ids"][: len(wild) * 5, 0] = np.repeat(wild, 5)
    ((logit_N1, _),) = run_onnx(graph, [request])
    of_user = request["in_user_ids"][request["in_row"], 0]
    expected = cross_ids(schema, cross, of_user, request["in_item_ids"][:, 0])
    np.testing.assert_array_equal(logit_N1[:, 0].astype(np.int32), expected)
    assert set(expected[:40]) >= {0, UNKNOWN}
    assert len(np.unique(expected)) > 1000
