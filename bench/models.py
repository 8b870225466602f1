"""Models with random weights, and requests drawn at random, for what is measured without training.

Imports no more than torch and numpy beside our own, so that it runs on a host with little installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rankd_contract.schema import Entity, FeatureSchema
from rankd_contract.schema_file import parse_schema
from rankd_contract.signature import ROW, inputs
from rankd_training.models import registry

__all__ = ["HISTORY", "Request", "build", "request_of", "schema_of", "schema_text", "tensors"]

ROWS_A_FIELD, HISTORY = 10_000, 50
# A PLE of five layers damps what comes in; MLCC's crosses are cubic, so small embeddings say nothing.
SPREAD = {"ple": 1.0, "mlcc": 0.7}

Request = Mapping[str, NDArray[Any]]


def schema_of(model: str) -> FeatureSchema:
    """What `schema_text` says."""
    return parse_schema(schema_text(model))


def schema_text(model: str) -> str:
    """20 fields, 8 of them the user's and the context's; INFNet has two histories and a task besides."""

    def ids(name: str) -> dict[str, Any]:
        return {"name": name, "kind": "categorical", "dtype": "int64", "hash": ROWS_A_FIELD}

    def number(name: str) -> dict[str, Any]:
        return {"name": name, "kind": "numeric", "dtype": "float32", "default": 0}

    user = [*(ids(f"u{k}") for k in range(6)), number("u_n")]
    tasks = [{"name": "click"}]
    if model == "infnet":
        user += [
            {"name": f"h{k}", "kind": "sequence", "shares": "i0", "max_length": HISTORY} for k in range(2)
        ]
        tasks.append({"name": "buy"})
    item = [*(ids(f"i{k}") for k in range(11)), number("i_n")]
    hour = {"name": "hour", "kind": "categorical", "source": "at", "derive": "hour_of_day"}
    views = [
        {"name": "user", "entity": "user", "key": "u", "fields": user},
        {"name": "item", "entity": "item", "key": "i", "fields": item},
        {"name": "now", "entity": "context", "fields": [hour]},
    ]
    return str({"rankd_schema": 1, "name": "bench", "views": views, "tasks": tasks})


def request_of(schema: FeatureSchema, candidates: int, users: int, seed: int) -> dict[str, NDArray[Any]]:
    """Draw ids and numbers at random; a third of every history is padding."""
    rng = np.random.default_rng(seed)
    named: dict[str, NDArray[Any]] = {ROW: np.arange(candidates, dtype=np.int64) % users}
    for entity in Entity:
        layout, n = schema.layout(entity), candidates if entity is Entity.ITEM else users
        columns = [rng.integers(1, schema.cardinality(p.field), (n, p.field.num_ids)) for p in layout.fields]
        for place, column in zip(layout.fields, columns, strict=True):
            column[:, place.field.max_length * 2 // 3 if place.field.num_ids > 1 else 1 :] = 0
        named[f"in_{entity.value}_ids"] = np.concatenate(columns, axis=1).astype(np.int32)
        named[f"in_{entity.value}_values"] = rng.normal(size=(n, layout.num_values)).astype(np.float32)
    return {spec.name: named[spec.name] for spec in inputs(schema)}


def tensors(request: Request) -> dict[str, Tensor]:
    """The same, for torch."""
    return {name: torch.from_numpy(array) for name, array in request.items()}


def build(name: str, schema: FeatureSchema) -> nn.Module:
    """A model with random weights, its batch statistics those of 2000 rows."""
    torch.manual_seed(0)
    model: nn.Module = registry.build(name, schema, {"embedding_std": SPREAD.get(name, 0.3)})
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(part, nn.BatchNorm1d):
            part.momentum = None
    with torch.no_grad():
        model.train()(tensors(request_of(schema, 2000, 50, seed=99)))
    return model.eval()
