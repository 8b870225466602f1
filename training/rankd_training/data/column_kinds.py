"""What the values of a column are where its type does not say: moments, or numbers written as text."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["is_milliseconds", "is_number_text", "is_time", "is_written_number", "is_written_time"]

_FEW_TEXTS = 1000
_YEARS_S = (631_152_000, 4_102_444_800)  # 1990 to 2100
_TIME_NAME = re.compile(r"(^|_)(time|timestamp|ts|at|date)($|_)", re.IGNORECASE)
_NONE = {"", "-", "?", ".", "na", "n/a", "nan", "null", "none", "missing", "unknown"}
_NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
_FRACTION = r"^\s*[-+]?\d*\.\d+([eE][-+]?\d+)?\s*$"


def is_time(name: str, column: Any) -> bool:
    """Whether a column holds moments: timestamps, or seconds since 1970 under a name that says so."""
    if pa.types.is_timestamp(column.type):
        return True
    if not pa.types.is_integer(column.type) or not _TIME_NAME.search(name):
        return False
    bounds: Any = pc.min_max(column).as_py()
    low, high = _YEARS_S
    return bounds["min"] is not None and low <= bounds["min"] and bounds["max"] < high


def is_milliseconds(name: str, column: Any) -> bool:
    """Whether a column holds moments in milliseconds since 1970, under a name that says so."""
    if not pa.types.is_integer(column.type) or not _TIME_NAME.search(name):
        return False
    bounds: Any = pc.min_max(column).as_py()
    low, high = (1000 * bound for bound in _YEARS_S)
    return bool(low <= bounds["min"] and bounds["max"] < high)


def is_written_time(column: Any) -> bool:
    """Whether text says when, as `2024-01-31 12:00:00` does."""
    few = _few_texts(column)
    if not len(few):
        return False
    try:
        few.cast(pa.timestamp("us", "UTC" if few[0].as_py()[-1:] == "Z" else None))
    except pa.ArrowInvalid:
        return False
    return True


def is_written_number(column: Any) -> bool:
    """Whether text is of numbers, some with fractions, such as `22013.55`, but for what stands for none.

    Other text among them, as `V57` among codes of diseases, makes them names.
    """
    few = _few_texts(column)
    number_n, fraction_n = (
        np.asarray(pc.match_substring_regex(few, pattern).to_numpy(zero_copy_only=False), np.bool_)
        for pattern in (_NUMBER, _FRACTION)
    )
    if not fraction_n.any():
        return False
    words = few.filter(pa.array(~number_n)).unique().to_pylist()
    return all(word.strip().lower() in _NONE for word in words)


def is_number_text(column: Any) -> bool:
    """Whether a column is text of whole numbers: names, or what counts or measures, and only people know."""
    if is_written_number(column):
        return True
    few = _few_texts(column)
    return len(few) > 0 and bool(pc.all(pc.match_substring_regex(few, r"^\s*[-+]?\d+\s*$")).as_py())


def _few_texts(column: Any) -> Any:
    """Some of the values of a column of text, and none of another column."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return pa.array([], pa.string())
    return column.drop_null().slice(0, _FEW_TEXTS)
