"""A schema of one user field, and what its values become."""

from __future__ import annotations

from rankd_contract.columns import Column
from rankd_contract.encoding import Block, Encoder
from rankd_contract.schema import Entity, FeatureSchema
from rankd_contract.schema_file import parse_schema

__all__ = ["encode", "one"]

SCHEMA = """
rankd_schema: 1
name: one
views:
  - {{name: users, entity: user, key: user_id, fields: [{fields}]}}
  - {{name: items, entity: item, key: id, fields: [{{name: item, kind: categorical, dtype: int64, hash: 9}}]}}
tasks: [{{name: click}}]
"""


def one(field: str) -> FeatureSchema:
    return parse_schema(SCHEMA.format(fields=field))


def encode(schema: FeatureSchema, name: str, column: Column, entity: Entity = Entity.USER) -> Block:
    encoder = Encoder(schema, entity)
    block = Block.empty(len(column), encoder.layout)
    encoder.encode_field(encoder.by_name[name], column, block, slice(None))
    return block
