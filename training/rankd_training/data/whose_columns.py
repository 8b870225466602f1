"""Whose is a column? The user's or the item's where all rows of one have one value, else the event's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["follows", "holds_ids_of", "names_rows", "sides", "whole"]


def sides(table: pa.Table, columns: Sequence[str], user: str, item: str) -> dict[str, list[str]]:
    """Tell columns apart: by `user`, `item` and `context`, in their order."""
    found: dict[str, list[str]] = {"user": [], "item": [], "context": []}
    for column in columns:
        if column in {user, item}:
            continue
        if follows(table, column, item):
            found["item"].append(column)
        elif follows(table, column, user) or pa.types.is_nested(table[column].type):
            # A list that changes from row to row is what a user did before: the user's, as of the event.
            found["user"].append(column)
        else:
            found["context"].append(column)
    return found


def follows(table: pa.Table, column: str, entity: str) -> bool:
    """Whether rows of one entity all have one value; where it is missing, it is not another one."""
    values: Any = whole(table[column])
    if pa.types.is_list(values.type):
        values = pc.binary_join(values.cast(pa.list_(pa.string())), "\x1f")
    elif pa.types.is_nested(values.type):
        return False
    elif pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)  # missing, as in fields
    pairs = pa.table({"entity": whole(table[entity]), "value": values}).drop_null()
    num_pairs = pairs.group_by(["entity", "value"]).aggregate([]).num_rows
    return num_pairs == len(whole(pairs["entity"]).unique()) < pairs.num_rows


def holds_ids_of(values: Any, item: Any) -> bool:
    """Whether lists hold nothing but ids of the item's column."""
    if not pa.types.is_list(values.type) or values.type.value_type != item.type:
        return False
    ids = values.flatten().unique()
    return len(ids) > 0 and bool(pc.all(pc.is_in(ids, value_set=whole(item).unique())).as_py())


def names_rows(column: Any) -> bool:
    """Whether a column tells the rows apart: whole numbers or text, none twice."""
    kind = column.type
    plain = pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return plain and not column.null_count and len(whole(column).unique()) == len(column)


def whole(column: Any) -> Any:
    """A column in one piece."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
