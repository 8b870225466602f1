"""Requests drawn at random within the schema's ranges, for graphs whose weights were never trained."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankd_contract.schema import Entity, FeatureSchema
from rankd_contract.signature import ROW, inputs


def random_request(schema: FeatureSchema, candidates: int, users: int, seed: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    rows = {"R": users, "N": candidates}
    request: dict[str, NDArray[Any]] = {}
    for entity in Entity:
        layout = schema.layout(entity)
        n = rows["N" if entity is Entity.ITEM else "R"]
        highest = [schema.cardinality(f.field) for f in layout.fields for _ in range(f.field.num_ids)]
        request[f"in_{entity.value}_ids"] = rng.integers(0, highest, (n, layout.num_ids)).astype(np.int32)
        request[f"in_{entity.value}_values"] = rng.normal(size=(n, layout.num_values)).astype(np.float32)
    request[ROW] = np.arange(candidates, dtype=np.int64) % users
    return {spec.name: request[spec.name] for spec in inputs(schema)}
