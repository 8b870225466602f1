"""Models as somebody writes them who follows the paper: what bench/export.py compares exported graphs with.

One table a field, the user's features repeated for every candidate, the equations as they are printed
(`*_equations.py`, einsum and all). The weights are a given model's, so that both must give the same scores.

Legend: N candidates, S slots, E width of a slot, L positions of all sequences, T tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim

from rankd_contract.schema import FeatureSchema, FieldLayout, Kind
from rankd_contract.signature import ROW, input_name
from rankd_export.graph import OPSET
from rankd_training.layers.embedding import ITEM_SIDE, USER_SIDE, FeatureEmbedding
from rankd_training.layers.entmax import entmax_by_bisection
from rankd_training.models import armnet_equations, infnet_equations, mlcc_equations
from rankd_training.models.armnet import ARMNet
from rankd_training.models.dcnv2 import DCNv2
from rankd_training.models.infnet import INFNet
from rankd_training.models.mlcc import MLCC

__all__ = ["Naive", "entmax_bisected", "entmax_by_sorting", "naive_onnx", "tiled"]

Request = Mapping[str, NDArray[Any]]


class Naive(nn.Module):
    """Inputs by signature name, all of them with N rows -> probabilities [N, T].

    `sparse` is ARM-Net's entmax: the published algorithm sorts, the authors' code bisects 50 times.
    """

    def __init__(self, model: nn.Module, sparse: Callable[[Tensor, float], Tensor] | None = None) -> None:
        super().__init__()
        self.model = model
        self.sparse = sparse or entmax_by_sorting
        embedding: Any = model.embedding
        self.fields = _Fields(model.schema, embedding)  # type: ignore[arg-type]  # a ranking model's

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """-> probabilities [N, T]."""
        model = self.model
        if isinstance(model, INFNet):
            logits = infnet_equations.over_tokens(model, *self._tokens(model, features))
        elif isinstance(model, MLCC):
            logits = mlcc_equations.over_slots(model, self.fields(features))
        elif isinstance(model, ARMNet):
            logits = armnet_equations.over_slots(model, self.fields(features), self.sparse)
        else:
            assert isinstance(model, DCNv2)
            logits = _dcnv2(model, self.fields(features))
        return torch.sigmoid(logits)

    def _tokens(self, model: INFNet, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        c_NSE = self.fields(features, sequences=False)
        parts = [self.fields.positions(field, features) for field in self.fields.sequences]
        if not parts:
            return c_NSE, c_NSE[:, :0], c_NSE[:, :0, 0]
        s_NLE = torch.cat([x for x, _ in parts], dim=1)
        present_NL = torch.cat([present for _, present in parts], dim=1)
        if len(model.positions):
            s_NLE = (s_NLE + torch.cat(list(model.positions))) * present_NL.unsqueeze(2)
        return c_NSE, s_NLE, present_NL


class _Fields(nn.Module):
    """A table a field, with the rows that the one table of `embedding` has for it."""

    def __init__(self, schema: FeatureSchema, embedding: FeatureEmbedding) -> None:
        super().__init__()
        tables = {}
        self.places: list[tuple[str, FieldLayout]] = []
        for entity in (*USER_SIDE, *ITEM_SIDE):
            for place in schema.layout(entity).fields:
                self.places.append((entity.value, place))
                owner = schema.table(place.field).name
                if schema.cardinality(place.field) and owner not in tables:
                    rows = embedding.table.weight[embedding.rows_of(owner)]
                    tables[owner] = nn.Embedding.from_pretrained(rows.detach().clone())
        self.tables = nn.ModuleDict(tables)
        self.owner = {p.field.name: schema.table(p.field).name for _, p in self.places}
        self.sides = nn.ModuleList([embedding.user_side, embedding.item_side])
        self.sequences = [(e, p) for e, p in self.places if p.field.kind is Kind.SEQUENCE]
        # Numbers in the order of each side's rows of scale and shift.
        numbers = {0: 0, 1: 0}
        self.number: dict[str, tuple[int, int]] = {}
        for entity, place in self.places:
            side = int(entity == ITEM_SIDE[0].value)
            if not place.field.num_ids:
                self.number[place.field.name] = (side, numbers[side])
                numbers[side] += 1

    def forward(self, features: Mapping[str, Tensor], *, sequences: bool = True) -> Tensor:
        """-> slots [N, S, E], lists as the mean of what they hold."""
        slots = []
        for entity, place in self.places:
            if place.field.kind is Kind.SEQUENCE and not sequences:
                continue
            slots.append(self._slot(entity, place, features))
        return torch.stack(slots, dim=1)

    def positions(self, at: tuple[str, FieldLayout], features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """-> a list field's values [N, L, E], zero at padding, and which are present [N, L]."""
        entity, place = at
        ids = features[f"in_{entity}_ids"][:, place.ids]
        present = (ids != 0).float()
        return self.tables[self.owner[place.field.name]](ids) * present.unsqueeze(2), present

    def _slot(self, entity: str, place: FieldLayout, features: Mapping[str, Tensor]) -> Tensor:
        field = place.field
        if not field.num_ids:
            value = features[f"in_{entity}_values"][:, place.values]
            side, at = self.number[field.name]
            made: Tensor = value * self.sides[side].scale_VE[at] + self.sides[side].shift_VE[at]
            return made
        if field.kind in {Kind.SEQUENCE, Kind.MULTI_VALUE}:
            x, present = self.positions((entity, place), features)
            return x.sum(1) / present.sum(1, keepdim=True).clamp(min=1.0)
        slot: Tensor = self.tables[self.owner[field.name]](features[f"in_{entity}_ids"][:, place.ids.start])
        return slot


def tiled(request: Request) -> dict[str, NDArray[Any]]:
    """Repeat the user's rows for every candidate, as a client of such a graph has to."""
    row = request[ROW]
    of_item = {input_name(ITEM_SIDE[0], part) for part in ("ids", "values")}
    return {
        name: array if name in of_item else np.ascontiguousarray(array[row])
        for name, array in request.items()
        if name != ROW
    }


def naive_onnx(naive: Naive, request: Request) -> onnx.ModelProto:
    """Export it with the same exporter, opset and optimisations as ours."""
    features = {name: torch.from_numpy(array) for name, array in tiled(request).items()}
    rows = {"N": Dim("N", min=1, max=1 << 20)}
    with torch.no_grad():
        program = torch.onnx.export(
            naive.eval(),
            (),
            kwargs={"features": features},
            dynamo=True,
            opset_version=OPSET,
            input_names=list(features),
            output_names=["out_scores"],
            dynamic_shapes={"features": {name: {0: rows["N"]} for name in features}},
            verbose=False,
        )
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    return proto


def entmax_by_sorting(scores: Tensor, alpha: float) -> Tensor:
    """Exact entmax over the last axis for alpha 1, 1.5 and 2 (arXiv 1905.05702, algorithm 2)."""
    if alpha == 1:
        return torch.softmax(scores, -1)
    if alpha not in {1.5, 2.0}:
        return entmax_by_bisection(scores, alpha, rounds=50)
    x = (scores - scores.amax(-1, keepdim=True)) * (alpha - 1)
    ordered, _ = torch.sort(x, dim=-1, descending=True)
    k = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    total = ordered.cumsum(-1)
    if alpha == 2:
        tau_k = (total - 1) / k
        size = (ordered > tau_k).sum(-1, keepdim=True)
        return torch.relu(x - tau_k.gather(-1, size - 1))
    mean = total / k
    spread = (ordered * ordered).cumsum(-1) - k * mean * mean
    tau_k = mean - torch.sqrt(torch.relu((1 - spread) / k))
    size = (tau_k <= ordered).sum(-1, keepdim=True)
    return torch.relu(x - tau_k.gather(-1, size - 1)).square()


def entmax_bisected(scores: Tensor, alpha: float) -> Tensor:
    """The same by 50 rounds of bisection, as ARM-Net's authors have it."""
    return torch.softmax(scores, -1) if alpha == 1 else entmax_by_bisection(scores, alpha, rounds=50)


def _dcnv2(model: DCNv2, x_NSE: Tensor) -> Tensor:
    """Equation 1 and figure 1b, with dropout off."""
    x0 = x_NSE.flatten(1)
    first = model.cross.first
    layers = [(first.weight_IO, first.bias_O)] + [(m.weight.T, m.bias) for m in model.cross.rest]
    x = x0
    for weight, bias in layers:
        x = x0 * (x @ weight + bias) + x
    deep_in = model.deep_in
    deep = model.deep(torch.relu(x0 @ deep_in.weight_IO + deep_in.bias_O))
    logits: Tensor = model.head(model.mix(torch.cat([x, deep], dim=1)))
    return logits
