"""The exported graph is the model, at every size, for every architecture."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import rankd_training
from rankd_contract.schema import FeatureSchema
from rankd_contract.schema_file import load_schema, parse_schema
from rankd_contract.signature import SCORES, inputs
from rankd_export.errors import GraphRefused, ParityFailed
from rankd_export.graph import check, to_onnx
from rankd_export.parity import compare, run_onnx
from rankd_export.work import work_of
from rankd_training.models import registry
from tests.export.agreement import assert_agrees
from tests.export.requests import random_request
from tests.training.fields import table_schema

MOVIELENS = load_schema(Path(str(rankd_training.__file__)).parent / "schemas" / "movielens-100k.yaml")
MIXED = parse_schema("""
rankd_schema: 1
name: mixed
views:
  - name: who
    entity: user
    key: id
    fields:
      - {name: income, kind: numeric, dtype: float32, default: 0, transform: log1p}
      - {name: city, kind: categorical, dtype: string, hash: 50}
  - {name: history, entity: user, key: id, fields: [{name: past, kind: sequence, shares: sku, max_length: 4}]}
  - name: what
    entity: item
    key: id
    fields:
      - {name: sku, kind: categorical, dtype: int64, hash: 100}
      - {name: price, kind: numeric, dtype: float32, default: 1}
tasks: [{name: click}]
""")


@cache
def lively(name: str, schema: FeatureSchema) -> nn.Module:
    """A model whose embeddings are large enough for a mistake in a cross to show."""
    torch.manual_seed(0)
    std = 1.0 if name == "ple" else 0.5  # its many layers damp what comes in
    return registry.build(name, schema, {"embedding_std": std}).eval()


@cache
def serialised(name: str, schema: FeatureSchema) -> bytes:
    example = random_request(schema, 6, 3, seed=1)
    tensors = {name: torch.from_numpy(array) for name, array in example.items()}
    graph: bytes = to_onnx(lively(name, schema), schema, tensors).SerializeToString()
    return graph


def exported(name: str, schema: FeatureSchema) -> onnx.ModelProto:
    return onnx.load_from_string(serialised(name, schema))


# What all have in common shows in a few; CI asks the others.
MODELS = [
    pytest.param(name, marks=[] if name in {"mlcc", "dcnv2", "fm", "lr"} else [pytest.mark.slow])
    for name in registry.names()
]


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(MOVIELENS, id="movielens", marks=pytest.mark.slow),
        pytest.param(MIXED, id="mixed"),
        pytest.param(table_schema(), id="table", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", MODELS)
def test_graph_and_model_agree_at_every_size(name: str, schema: FeatureSchema) -> None:
    model = lively(name, schema)
    assert_agrees(model, exported(name, schema), schema)


@pytest.mark.parametrize("name", MODELS)
def test_no_model_repeats_the_users_work(name: str) -> None:
    work = work_of(exported(name, MOVIELENS))
    assert work.repeated == 0
    assert 0 < work.per_candidate < work.per_candidate_tiled


def test_graph_scores_a_candidate_alike_whatever_stands_beside_it() -> None:
    graph = exported("mlcc", MOVIELENS)
    whole = random_request(MOVIELENS, 50, 1, seed=5)
    ((_, together),) = run_onnx(graph, [whole])
    singles = [
        {**whole, "in_item_ids": whole["in_item_ids"][i : i + 1], "in_row": np.zeros(1, np.int64)}
        for i in range(50)
    ]
    apart = np.concatenate([scores for _, scores in run_onnx(graph, singles)])
    np.testing.assert_allclose(together, apart, atol=1e-6)


def test_graph_reads_ids_outside_their_table_as_unknown() -> None:
    graph = exported("mlcc", MOVIELENS)
    known = random_request(MOVIELENS, 4, 1, seed=2)
    wild, unknown = ({k: a.copy() for k, a in known.items()} for _ in range(2))
    wild["in_item_ids"][:, 0] = [-1, -(2**31), 2**31 - 1, 10_000_000]
    unknown["in_item_ids"][:, 0] = 1
    (_, by_wild), (_, by_unknown) = run_onnx(graph, [wild, unknown])
    np.testing.assert_array_equal(by_wild, by_unknown)


def test_graph_carries_no_trace_of_the_machine_it_was_made_on() -> None:
    text = exported("lr", MOVIELENS).SerializeToString()
    assert b"site-packages" not in text
    assert str(Path(__file__).parents[2]).encode() not in text


def test_graph_has_the_signature_of_the_schema() -> None:
    graph = exported("mlcc", MIXED).graph
    assert [value.name for value in graph.input] == [spec.name for spec in inputs(MIXED)]
    assert SCORES in [value.name for value in graph.output]


def test_a_weight_that_has_an_inputs_name_is_refused() -> None:
    graph = exported("lr", MIXED)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.int64), "in_row"))
    with pytest.raises(GraphRefused, match="in_row"):
        check(graph, MIXED)


def test_a_graph_with_a_fixed_number_of_candidates_is_refused() -> None:
    graph = exported("lr", MIXED)
    for value in graph.graph.output:
        value.type.tensor_type.shape.dim[0].dim_value = 6
    with pytest.raises(GraphRefused, match="rows dynamic"):
        check(graph, MIXED)


def test_a_graph_of_other_weights_fails_parity_with_the_difference_named() -> None:
    graph = exported("mlcc", MOVIELENS)
    other = deepcopy(lively("mlcc", MOVIELENS))
    with torch.no_grad():
        next(reversed(list(other.parameters()))).add_(0.01)
    with pytest.raises(ParityFailed, match="allowed is 1e-05"):
        compare(other, graph, [random_request(MOVIELENS, 7, 1, seed=3)])
