"""A graph cut in two computes what it computes whole, and an item's part is its own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from rankd_contract.signature import LOGITS, SCORES
from rankd_export.graph import to_onnx
from rankd_export.item_part import ItemPart, difference, split
from rankd_export.parity import run_onnx
from rankd_export.precision import GOLDEN_TOLERANCE, Precision, reduced
from rankd_export.work import work_of
from rankd_training.models import registry
from tests.export.requests import random_request
from tests.export.test_graph import MIXED

SIZES = ((1, 1), (7, 1), (40, 3))


def exported(model: nn.Module) -> onnx.ModelProto:
    example = {k: torch.from_numpy(a) for k, a in random_request(MIXED, 6, 3, seed=1).items()}
    return to_onnx(model.eval(), MIXED, example)


def cut(graph: onnx.ModelProto) -> ItemPart:
    made = split(graph)
    assert made is not None
    for part in (made.item, made.rest):
        onnx.checker.check_model(part, full_check=True)
    return made


def apart(made: ItemPart, graph: onnx.ModelProto, folder: Path) -> float:
    """How far the two graphs, the first run row by row, are from the one."""
    requests = [random_request(MIXED, n, users, seed=n) for n, users in SIZES]
    item, rest = folder / "item.onnx", folder / "rest.onnx"
    onnx.save(made.item, item)
    onnx.save(made.rest, rest)
    return difference(item, rest, requests, [scores for _, scores in run_onnx(graph, requests)], 1e-5)


@pytest.mark.parametrize("name", ["lr", "fm", "dcnv2", "mlcc"])
def test_the_two_graphs_are_the_one(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    graph = exported(registry.build(name, MIXED, {}))
    assert apart(cut(graph), graph, tmp_path) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.names())
def test_every_model_is_cut_without_a_word_from_it(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    graph = exported(registry.build(name, MIXED, {}))
    assert apart(cut(graph), graph, tmp_path) < 1e-6
    small = reduced(graph, Precision.INT8_EMBEDDINGS)
    assert apart(cut(small), small, tmp_path) < 1e-6


def test_half_precision_is_cut_too(tmp_path: Path) -> None:
    """Its kernels compute one row and many in different steps, within what the precision itself allows."""
    torch.manual_seed(0)
    graph = reduced(exported(registry.build("mlcc", MIXED, {})), Precision.FP16)
    assert apart(cut(graph), graph, tmp_path) < GOLDEN_TOLERANCE[Precision.FP16]


class TwoSided(nn.Module):
    """A matrix a side and one over their sum: the item's is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item, self.out = nn.Linear(1, 5), nn.Linear(1, 5), nn.Linear(5, 1)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        user = self.user(features["in_user_values"]).index_select(0, features["in_row"])
        out: Tensor = self.out(torch.relu(user + self.item(features["in_item_values"])))
        return out


def test_what_is_linear_in_the_item_is_in_its_part_and_nothing_else(tmp_path: Path) -> None:
    graph = exported(TwoSided())
    made = cut(graph)
    assert made.numbers == 5
    assert work_of(made.item).per_candidate == 5
    assert work_of(made.rest).per_candidate == work_of(graph).per_candidate - 5
    assert {value.name for value in made.item.graph.input} == {"in_item_values"}
    assert "in_item_values" not in {value.name for value in made.rest.graph.input}


@pytest.mark.parametrize("name", ["dnn", "dcnv2", "mlcc"])
def test_layers_over_the_items_fields_are_in_its_part_and_nothing_is_done_twice(name: str) -> None:
    torch.manual_seed(0)
    graph = exported(registry.build(name, MIXED, {}))
    made = cut(graph)
    of_item, of_rest, of_both = (work_of(g).per_candidate for g in (made.item, made.rest, graph))
    assert of_item > 0
    assert of_item + of_rest == of_both


class OfNobody(nn.Module):
    """Scores that no user has a part in, such as popularity."""

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        return features["in_item_values"] * 2 + 1


def test_scores_of_the_item_alone_are_still_the_rests_to_give(tmp_path: Path) -> None:
    graph = exported(OfNobody())
    made = cut(graph)
    assert [value.name for value in made.rest.graph.output] == [SCORES]
    assert apart(made, graph, tmp_path) == 0


class OfTheUser(nn.Module):
    """Scores that no item has a part in."""

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        return features["in_user_values"].index_select(0, features["in_row"])


def test_a_graph_without_an_items_part_is_left_whole() -> None:
    assert split(exported(OfTheUser())) is None


def test_a_scale_of_all_rows_together_is_no_items_own() -> None:
    """A dynamic int8 layer looks at the whole request, so its item's products are not cut off."""
    torch.manual_seed(0)
    graph = reduced(exported(registry.build("dnn", MIXED, {"hidden": [128, 64]})), Precision.INT8)
    made = split(graph)
    assert made is None or not any(n.op_type == "DynamicQuantizeLinear" for n in made.item.graph.node)


def test_a_part_that_depends_on_its_neighbours_is_seen(tmp_path: Path) -> None:
    """The mean over all candidates is made of items alone, and is not an item's."""
    values = helper.make_tensor_value_info("in_item_values", TensorProto.FLOAT, ["N", 1])
    mean = helper.make_node("ReduceMean", ["in_item_values", "rows"], ["mean"], keepdims=1)
    centred = helper.make_node("Sub", ["in_item_values", "mean"], ["centred"])
    logits = helper.make_node("Identity", ["centred"], [LOGITS])
    scores = helper.make_node("Sigmoid", [LOGITS], [SCORES])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1]) for name in (LOGITS, SCORES)]
    rows = helper.make_tensor("rows", TensorProto.INT64, [1], [0])
    built = helper.make_graph([mean, centred, logits, scores], "centred", [values], outputs, [rows])
    graph = helper.make_model(built, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    made = cut(graph)
    requests: list[dict[str, Any]] = [{"in_item_values": np.array([[0.0], [4.0]], np.float32)}]
    onnx.save(made.item, tmp_path / "item.onnx")
    onnx.save(made.rest, tmp_path / "rest.onnx")
    scored = [scores for _, scores in run_onnx(graph, requests)]
    assert difference(tmp_path / "item.onnx", tmp_path / "rest.onnx", requests, scored, 1e-5) == math.inf
