"""Columns of ids: what they are called, and as what they come where some are missing."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import pyarrow as pa

from rankd_contract.arrow_whole import is_float, whole_numbers
from rankd_contract.errors import ValueTypeError
from rankd_training.data.whose_columns import whole

__all__ = ["is_id_name", "is_id_type", "with_whole_ids"]

_ID_NAME = re.compile(
    r"(^|_)(id|ids|uid|code|key|hash|zip|zipcode|ip)(_\d+)?$|_(no|nr|number)$|[a-z]Id$", re.IGNORECASE
)


def is_id_name(name: str) -> bool:
    """Whether a column is called as something that names things."""
    return _ID_NAME.search(name) is not None


def is_id_type(kind: Any) -> bool:
    """Whether a column of this Arrow type can hold ids. Unsigned 64 bits may be larger than fields hold."""
    whole_number = pa.types.is_integer(kind) and not pa.types.is_uint64(kind)
    return bool(whole_number or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def with_whole_ids(table: pa.Table, named: Collection[str]) -> tuple[pa.Table, list[str]]:
    """Read ids that are stored as floats as whole numbers -> the table so, and which columns these are.

    Args:
        table: its columns in any number of pieces.
        named: columns that hold ids, whatever they are called.
    """
    read = []
    for at, name in enumerate(table.column_names):
        column = whole(table[name])
        if not is_float(column.type) or not (name in named or is_id_name(name)):
            continue
        try:
            numbers, there = whole_numbers(name, column)
        except ValueTypeError:
            continue  # a measure after all
        if there.any():
            table = table.set_column(at, name, pa.chunked_array([pa.array(numbers, mask=~there)]))
            read.append(name)
    return table, read
