"""What stands beside the fields in a row of examples: labels, split, whose row it is, when it happened.

Each is read from one piece of a file; what does not fit is refused with file, column and row, counted from 0
over the file.

Legend: n rows of the piece.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rankd_contract.columns import Column
from rankd_contract.errors import ValueTypeError
from rankd_contract.hashing import Strings, hash_ints, hash_strings, salt
from rankd_contract.schema import DType, Field, Kind
from rankd_training.data.splits import SPLIT, SPLIT_NAMES
from rankd_training.errors import ExamplesError

__all__ = ["Piece", "group_codes", "label", "nobody_codes", "split_codes", "times"]

_NOBODY = -1


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring rows of one file; `first_row` says where in the file they start."""

    path: Path
    first_row: int
    batch: pa.RecordBatch

    def __len__(self) -> int:
        return self.batch.num_rows

    def column(self, name: str) -> Any:
        """One column; dictionaries as what they stand for."""
        array: Any = self.batch.column(name)
        return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array

    def refuse(self, column: str, problem: str, row: int | None = None) -> NoReturn:
        """Raise ExamplesError; `row` is counted in the piece."""
        at = None if row is None else self.first_row + row
        raise ExamplesError(self.path, problem, column=column, row=at)


def label(piece: Piece, column: str) -> npt.NDArray[np.float32]:
    """0 or 1 a row -> float32 [n]."""
    array = piece.column(column)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        shown = " and ".join(repr(v) for v in pc.unique(array).to_pylist()[:2])
        problem = f"a label is 0 or 1 or a bool, got a column of {array.type}, such as {shown}"
        piece.refuse(column, f"{problem}; make a column of 0 and 1 of it")
    found = array.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
    label_n: npt.NDArray[np.float64] = np.asarray(found, np.float64)
    wrong_n = (label_n != 0) & (label_n != 1)  # true for NaN
    if wrong_n.any():
        row = int(wrong_n.argmax())
        given = array[row].as_py()
        got = "null" if given is None else "NaN" if np.isnan(label_n[row]) else f"{label_n[row]:g}"
        remedy = "drop such rows" if np.isnan(label_n[row]) else "make one of it, such as `rating >= 4`"
        piece.refuse(column, f"a label is 0 or 1, got {got}; {remedy}", row)
    return label_n.astype(np.float32)


def split_codes(piece: Piece) -> npt.NDArray[np.int8]:
    """The split each row names -> 0 for train, 1 for valid, 2 for test [n]."""
    array = piece.column(SPLIT)
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        problem = f"expected {', '.join(SPLIT_NAMES)} as strings, got a column of {array.type}"
        piece.refuse(SPLIT, f"{problem}; rename it, or deal rows out without it: `--split 80/10/10`")
    found = pc.index_in(array, value_set=pa.array(SPLIT_NAMES, array.type))
    code_n = np.asarray(found.fill_null(_NOBODY).to_numpy(zero_copy_only=False))
    if (code_n < 0).any():
        row = int((code_n < 0).argmax())
        given = array[row].as_py()
        near = difflib.get_close_matches(str(given), SPLIT_NAMES, 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        piece.refuse(SPLIT, f"expected {', '.join(SPLIT_NAMES)}, got {given!r}{hint}", row)
    return code_n.astype(np.int8)


def group_codes(piece: Piece, column: str, rows_before: int) -> npt.NDArray[np.int64]:
    """A code of whose row it is, the same for the same value in every piece -> int64 [n].

    Rows with a null are nobody's, and so no two of them one user's; `rows_before` counts those of all files.
    """
    array = piece.column(column)
    number = pa.types.is_integer(array.type) or pa.types.is_floating(array.type)
    dtype = DType.INT if number else DType.STRING
    try:
        found = Column.from_arrow(array, Field(column, Kind.CATEGORICAL, dtype, column))
    except ValueTypeError as error:
        piece.refuse(
            column, f"expected whole numbers or short strings to group rows by, got {error.got}", error.row
        )
    values = found.values
    code_n = hash_strings(values).view(np.int64) if isinstance(values, Strings) else values.astype(np.int64)
    return np.where(found.valid, code_n, nobody_codes(np.arange(rows_before, rows_before + len(piece))))


def nobody_codes(row_n: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The codes of rows that are nobody's, by their numbers over all files -> int64 [n]."""
    return hash_ints(row_n, salt("nobody")).view(np.int64)


def times(piece: Piece, column: str) -> npt.NDArray[np.int64]:
    """When each row happened, in whatever unit the column has -> int64 [n]."""
    array = piece.column(column)
    if not (pa.types.is_integer(array.type) or pa.types.is_temporal(array.type)):
        piece.refuse(column, f"expected integers, dates or timestamps to order rows by, got {array.type}")
    if array.null_count:
        row = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
        piece.refuse(column, "expected a time in every row, got null", row)
    if pa.types.is_date32(array.type):
        array = array.cast(pa.int32())
    return np.asarray(array.cast(pa.int64()).to_numpy(zero_copy_only=False), np.int64)
