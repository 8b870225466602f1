"""Whole numbers that Arrow holds as floats, which is how pandas writes integers where some are missing.

Arrow is told by what it offers; no Arrow library is imported here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankd_contract.errors import ValueTypeError

__all__ = ["FRACTION", "is_float", "whole_numbers"]

FRACTION = "a fraction"

_EXACT = {"halffloat": 2**11, "float": 2**24, "double": 2**53}  # below it, every whole number is exact


def is_float(kind: Any) -> bool:
    """Whether an Arrow type is of floats."""
    return str(kind) in _EXACT


def whole_numbers(name: str, array: Any) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Read a column of floats as whole numbers -> values [n], 0 where missing, and which rows have one [n].

    Null and NaN are missing. Raises ValueTypeError for the first row that has a fraction, or a number so
    large that its type cannot tell it from the next.
    """
    number_n = np.asarray(array.to_numpy(zero_copy_only=False), np.float64)  # null is NaN
    missing_n = np.isnan(number_n)
    exact = _EXACT[str(array.type)]
    large_n, fraction_n = np.abs(number_n) >= exact, np.floor(number_n) != number_n
    wrong_n = ~missing_n & (large_n | fraction_n)
    if wrong_n.any():
        row = int(np.argmax(wrong_n))
        got = f"one of {exact:,} or more as {array.type}, which may be rounded" if large_n[row] else FRACTION
        got = "an infinite number" if np.isinf(number_n[row]) else got
        raise ValueTypeError(name, row, "a whole number", got)
    return np.where(missing_n, 0, number_n).astype(np.int64), ~missing_n
