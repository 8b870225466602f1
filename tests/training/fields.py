"""Schemas and inputs for tests of layers and models."""

from __future__ import annotations

import torch
from torch import Tensor

from rankd_contract.schema import Entity, FeatureSchema
from rankd_contract.schema_file import parse_schema
from rankd_contract.signature import ROW, inputs

MIXED = """
rankd_schema: 1
name: mixed
views:
  - name: user
    entity: user
    key: user_id
    fields:
      - {name: user_id, kind: categorical, dtype: int64, hash: 10}
      - {name: income, kind: numeric, dtype: float32, default: 0.0}
      - {name: recent, kind: sequence, shares: item_id, max_length: 4}
      - {name: age, kind: numeric, dtype: int64, transform: {bucketize: [18, 40]}}
  - name: item
    entity: item
    key: item_id
    fields:
      - {name: item_id, kind: categorical, dtype: int64, hash: 20}
      - {name: tags, kind: multi_value, dtype: string, vocabulary: [a, b, c], max_length: 3}
      - {name: price, kind: numeric, dtype: float32, default: 1.0}
      - {name: weight, kind: numeric, dtype: float32, default: 1.0}
  - name: context
    entity: context
    fields:
      - {name: hour, kind: categorical, source: at, derive: hour_of_day}
tasks:
  - {name: click, label: clicked}
  - {name: buy, label: bought, weight: 2.0}
"""


CROSSES = """
crosses:
  - {name: user_item, of: [user_id, item_id], rows: 60}
  - {name: age_hour, of: [age, hour], rows: 1000}
  - {name: item_hour, of: [item_id, hour], rows: 70}
"""


def crossed_schema() -> FeatureSchema:
    """The mixed one with a cross on the user's side and two on the item's."""
    return parse_schema(MIXED + CROSSES)


def mixed_schema() -> FeatureSchema:
    """Every kind of field on every side, two tasks."""
    return parse_schema(MIXED)


def categorical_schema(num_user: int, num_item: int, *, num_tasks: int = 1) -> FeatureSchema:
    """Categorical fields only."""

    def fields(prefix: str, count: int) -> list[dict[str, object]]:
        return [
            {"name": f"{prefix}{i}", "kind": "categorical", "dtype": "int64", "hash": 5} for i in range(count)
        ]

    views = [
        {"name": "user", "entity": "user", "key": "u", "fields": fields("u", num_user)},
        {"name": "item", "entity": "item", "key": "i", "fields": fields("i", num_item)},
    ]
    tasks = [{"name": f"t{i}"} for i in range(num_tasks)]
    return parse_schema(str({"rankd_schema": 1, "name": "categorical", "views": views, "tasks": tasks}))


TABLE = """
rankd_schema: 1
name: table
views:
  - name: row
    entity: item
    key: id
    fields:
      - {name: colour, kind: categorical, dtype: string, vocabulary: [red, green, blue]}
      - {name: shape, kind: categorical, dtype: int64, hash: 16}
      - {name: size, kind: numeric, dtype: float32, default: 0.0}
      - {name: tags, kind: multi_value, dtype: string, hash: 8, max_length: 3}
tasks: [{name: click}]
"""


def table_schema() -> FeatureSchema:
    """The rows of a single table: no user, no context."""
    return parse_schema(TABLE)


def random_inputs(
    schema: FeatureSchema, num_users: int, num_items: int, *, seed: int = 0
) -> dict[str, Tensor]:
    """Valid inputs: ids in range, padding at the end of lists, some lists empty."""
    generator = torch.Generator().manual_seed(seed)
    features: dict[str, Tensor] = {}
    rows = {"R": num_users, "N": num_items}
    for entity in Entity:
        layout = schema.layout(entity)
        count = num_items if entity is Entity.ITEM else num_users
        columns = []
        for entry in layout.fields:
            width = entry.field.num_ids
            if width:
                ids = torch.randint(0, schema.cardinality(entry.field), (count, width), generator=generator)
                if width > 1:
                    lengths = torch.randint(0, width + 1, (count, 1), generator=generator)
                    ids = ids.clamp(min=1) * (torch.arange(width) < lengths)
                columns.append(ids)
        if columns:
            features[f"in_{entity.value}_ids"] = torch.cat(columns, dim=1).to(torch.int32)
        if layout.num_values:
            values = torch.randn(count, layout.num_values, generator=generator)
            features[f"in_{entity.value}_values"] = values
    features[ROW] = torch.randint(0, num_users, (num_items,), generator=generator)
    assert {s.name: (rows[str(s.dims[0])], *s.dims[1:]) for s in inputs(schema)} == {
        name: tuple(tensor.shape) for name, tensor in features.items()
    }
    return features


def tiled(features: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same request with one user row a candidate."""
    row_N = features[ROW]
    return {
        name: torch.arange(len(row_N)) if name == ROW else tensor if "item" in name else tensor[row_N]
        for name, tensor in features.items()
    }
