"""Raw columns: what a Parquet file or a JSON body holds, before encoding.

A column is kept as Arrow keeps it (flat values, validity, offsets for lists), so a Parquet column comes
in without a copy and a JSON list in one conversion. Arrow arrays are read through the buffers they
expose; no Arrow library is imported here. What is stored as float64 and what is written as a decimal is
rounded to float32 here, so that a value on the edge of a bucket falls into the same one from every source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankd_contract.arrow_whole import is_float, whole_numbers
from rankd_contract.errors import ValueTypeError
from rankd_contract.hashing import MAX_STRING_BYTES, Strings
from rankd_contract.schema import DType, Field, Kind

__all__ = ["UNITS_A_SECOND", "YEAR_10000_S", "Column", "Values"]

Values = Strings | NDArray[np.int64] | NDArray[np.float64]

_TYPES: dict[DType, tuple[type, ...]] = {
    DType.STRING: (str,),
    DType.INT: (int,),
    DType.FLOAT: (int, float),
    DType.BOOL: (bool,),
}
_ARROW_INTS = {"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool"}
UNITS_A_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_INT64 = range(-(2**63), 2**63)
YEAR_10000_S = 253_402_300_800
_SECONDS = "whole seconds since 1970"


@dataclass(frozen=True, slots=True)
class Column:
    """n raw values of one field, or n lists of them.

    `values` holds the flat values; `valid` [n] is False where a row is null; `offsets` [n + 1] cuts the
    flat values into lists where the field is a list.
    """

    values: Values
    valid: NDArray[np.bool_]
    offsets: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.valid)

    @classmethod
    def from_python(cls, rows: Sequence[Any], field: Field) -> Column:
        """Lay out JSON values of `field`; None is null. Raises ValueTypeError naming the row."""
        valid = np.fromiter((r is not None for r in rows), np.bool_, len(rows))
        if field.kind in {Kind.SEQUENCE, Kind.MULTI_VALUE}:
            lists = [() if r is None else r for r in rows]
            for row, entry in enumerate(lists):
                if not isinstance(entry, list | tuple):
                    expected = f"a list of {field.dtype.value}"
                    raise ValueTypeError(field.name, row, expected, type(entry).__name__)
            offsets = np.zeros(len(lists) + 1, np.int64)
            np.cumsum(np.fromiter(map(len, lists), np.int64, len(lists)), out=offsets[1:])
            flat = list(chain.from_iterable(lists))
            owner = np.repeat(np.arange(len(lists)), np.diff(offsets))
            return cls(_flat(flat, field, owner), valid, offsets)
        return cls(_flat(rows, field, np.arange(len(rows))), valid)

    @classmethod
    def from_arrow(cls, array: Any, field: Field) -> Column:
        """Lay out an Arrow array (not chunked) of `field`. Raises ValueTypeError where the type does not fit.

        Integers widen to int64, floats and decimals to float64. An integer column serves a float field, and a
        float column an integer field as long as its numbers are whole. A timestamp serves a field that
        derives from a time, as whole seconds since 1970.
        """
        valid = np.asarray(array.is_valid().to_numpy(zero_copy_only=False), np.bool_)
        if field.kind in {Kind.SEQUENCE, Kind.MULTI_VALUE}:
            if not str(array.type).startswith(("list<", "large_list<")):
                raise ValueTypeError(field.name, 0, f"a list of {field.dtype.value}", str(array.type))
            offsets = np.asarray(array.offsets.to_numpy(), np.int64)
            items = array.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
            if items.null_count:
                raise ValueTypeError(
                    field.name, _first_null_list(items, offsets), "a list without nulls", "a null"
                )
            offsets = offsets - offsets[0]
            return cls(
                _flat_arrow(items, field, np.repeat(np.arange(len(valid)), np.diff(offsets))), valid, offsets
            )
        if field.dtype is DType.INT and is_float(array.type):
            numbers, valid = whole_numbers(field.name, array)
            return cls(_moments(numbers, field, np.arange(len(valid))), valid)
        return cls(_flat_arrow(array, field, np.arange(len(valid))), valid)


def _flat(rows: Sequence[Any], field: Field, owner: NDArray[Any]) -> Values:
    if field.dtype is DType.INT and float in set(map(type, rows)):
        rows = [_as_whole(value) for value in rows]
    accepted = _TYPES[field.dtype]
    for i, value in enumerate(rows):
        if value is None and field.kind not in {Kind.SEQUENCE, Kind.MULTI_VALUE}:
            continue
        if not isinstance(value, accepted) or (isinstance(value, bool) and field.dtype is not DType.BOOL):
            raise ValueTypeError(field.name, int(owner[i]), field.dtype.value, type(value).__name__)
        if field.dtype is DType.INT and value not in _INT64:
            raise ValueTypeError(field.name, int(owner[i]), "a 64-bit integer", "a larger number")
    if field.dtype is DType.STRING:
        texts = [r or "" for r in rows]
        try:
            return _short(Strings.from_list(texts), field, owner)
        except UnicodeEncodeError:
            at = next(i for i, text in enumerate(texts) if not _is_utf8(text))
            raise ValueTypeError(
                field.name, int(owner[at]), "text that UTF-8 can write", "a surrogate"
            ) from None
    if field.dtype is DType.FLOAT:
        # A Python integer may be too large even for float64.
        numbers = [np.nan if r is None else max(min(r, 1e300), -1e300) for r in rows]
        return _rounded(np.array(numbers, np.float64), field)
    return _moments(np.array([r or 0 for r in rows], np.int64), field, owner)


def _as_whole(value: Any) -> Any:
    """A float that is whole as that number, as in a column of floats; anything else as it is."""
    exact = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return int(value) if exact else value


def _moments(numbers: NDArray[np.int64], field: Field, owner: NDArray[Any]) -> NDArray[np.int64]:
    """Refuse times that are no seconds: milliseconds would be a date far away, and quietly wrong."""
    if field.derive is not None and (late := numbers >= YEAR_10000_S).any():
        row = int(owner[int(np.argmax(late))])
        raise ValueTypeError(
            field.name, row, _SECONDS, "a time after the year 9999 (in milliseconds, or finer?)"
        )
    return numbers


def _rounded(numbers: NDArray[np.float64], field: Field) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        rounded = numbers.astype(np.float32)
    if np.isinf(rounded).any():
        row = int(np.flatnonzero(np.isinf(rounded))[0])
        raise ValueTypeError(field.name, row, "a finite float32", "a number out of range")
    return rounded.astype(np.float64)


def _short(strings: Strings, field: Field, owner: NDArray[Any]) -> Strings:
    lengths = np.diff(strings.offsets)
    if lengths.max(initial=0) > MAX_STRING_BYTES:
        row = int(owner[int(np.argmax(lengths > MAX_STRING_BYTES))])
        raise ValueTypeError(field.name, row, f"at most {MAX_STRING_BYTES} bytes", f"{lengths.max()} bytes")
    return strings


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _flat_arrow(array: Any, field: Field, owner: NDArray[Any]) -> Values:
    found = str(array.type)
    if found.startswith("dictionary"):
        array = array.dictionary_decode()
        found = str(array.type)
    if field.dtype is DType.STRING and found in {"string", "large_string"}:
        width = np.int64 if found == "large_string" else np.int32
        _, offset_buffer, data = array.buffers()
        n = len(array)
        if n == 0:
            return Strings(np.zeros(0, np.uint8), np.zeros(1, np.int64))
        offsets = np.frombuffer(offset_buffer, width)[array.offset : array.offset + n + 1].astype(np.int64)
        return _short(Strings(np.frombuffer(data or b"", np.uint8), offsets), field, owner)
    if field.derive is not None and found.startswith("timestamp["):
        unit = UNITS_A_SECOND[found.removeprefix("timestamp[").partition(",")[0].rstrip("]")]
        filled = array.cast("int64").fill_null(0)
        return np.asarray(filled.to_numpy(zero_copy_only=False), np.int64) // unit
    if field.dtype in {DType.INT, DType.BOOL} and found in _ARROW_INTS:
        filled = array.fill_null(False if found == "bool" else 0)
        return _moments(np.asarray(filled.to_numpy(zero_copy_only=False), np.int64), field, owner)
    if field.dtype is DType.FLOAT and found.startswith("decimal"):
        array, found = array.cast("double"), "double"
    if field.dtype is DType.FLOAT and (found in _ARROW_INTS or is_float(found)):
        return _rounded(np.asarray(array.to_numpy(zero_copy_only=False), np.float64), field)
    of = field.dtype.value if field.derive is None else f"timestamps, or of {_SECONDS}"
    if field.kind in {Kind.SEQUENCE, Kind.MULTI_VALUE}:
        raise ValueTypeError(field.name, 0, f"lists of {of}", f"lists of {found}")
    raise ValueTypeError(field.name, 0, f"a column of {of}", found)


def _first_null_list(items: Any, offsets: NDArray[np.int64]) -> int:
    first = int(np.flatnonzero(np.asarray(items.is_null().to_numpy(zero_copy_only=False)))[0])
    return int(np.searchsorted(offsets - offsets[0], first, side="right")) - 1
