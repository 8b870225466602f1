"""The `crosses` of a schema file: pairs of fields that are read together, checked against the fields."""

from __future__ import annotations

import difflib
from typing import Any

from rankd_contract.errors import SchemaError
from rankd_contract.schema import Cross, FeatureSchema, Kind
from rankd_contract.schema_values import mapping, name_of, positive, shown

__all__ = ["CROSS_KEYS", "FEWEST_ROWS", "read_crosses"]

CROSS_KEYS = ("name", "of", "rows")
FEWEST_ROWS = 2
_PAIR = 2


def read_crosses(trees: list[Any], schema: FeatureSchema) -> tuple[Cross, ...]:
    """Read crosses of the schema's fields. Raises SchemaError naming the place."""
    crosses: list[Cross] = []
    taken = dict.fromkeys(schema.fields, "field")
    for i, tree in enumerate(trees):
        cross = _cross(tree, f"crosses[{i}]", schema)
        if cross.name in taken:
            raise SchemaError(f"crosses[{i}].name: '{cross.name}' is a {taken[cross.name]} already")
        taken[cross.name] = "cross"
        crosses.append(cross)
    return tuple(crosses)


def _cross(tree: Any, at: str, schema: FeatureSchema) -> Cross:
    node = mapping(tree, at, CROSS_KEYS)
    name = name_of(node, at)
    at = f"{at} ({name})"
    of = node.get("of")
    if not isinstance(of, list) or len(of) != _PAIR:
        raise SchemaError(f"{at}.of: expected a list of two fields, got {shown(of)}")
    for k, field in enumerate(of):
        _check_field(field, f"{at}.of[{k}]", schema)
    left, right = of
    if left == right:
        raise SchemaError(f"{at}.of: a field crossed with itself is that field, got {shown(left)} twice")
    rows = positive(node.get("rows"), f"{at}.rows")
    if rows < FEWEST_ROWS:
        raise SchemaError(
            f"{at}.rows: in one row all combinations are alike; expected at least {FEWEST_ROWS}"
        )
    return Cross(name, (left, right), rows)


def _check_field(name: Any, at: str, schema: FeatureSchema) -> None:
    text = name if isinstance(name, str) else ""
    field = schema.fields.get(text)
    if field is None:
        near = difflib.get_close_matches(text, schema.fields, 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise SchemaError(f"{at}: {shown(name)} is not a field of any view{hint}")
    if not field.single:
        kind = "a number without buckets" if field.kind is Kind.NUMERIC else "a list"
        raise SchemaError(
            f"{at}: '{name}' is {kind}; a cross needs one id of each field: cross categorical fields, or "
            "numbers that are bucketized"
        )
