"""Text in libsvm's manner (libfm writes the same): a line a row, `label index:value index:value ...`.

Columns of such a file: `label` (0 or 1; -1 is read as 0; NaN on a line that has none), `ids` and `values`
(lists over the entries of a line), and, where every line has the same number of entries, `id_1`, `id_2`, ...
and `value_1`, `value_2`, ... by position. So a data set whose k-th entry is always its k-th field is a table
of categorical columns.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rankd_training.errors import ExamplesError

__all__ = ["LISTS", "SUFFIXES", "LibsvmFile", "entries_by_position"]

SUFFIXES = (".libsvm", ".libfm", ".svm")
_PIECE_BYTES = 4 << 20
_LABEL, _IDS, _VALUES = "label", "ids", "values"
LISTS = (_LABEL, _IDS, _VALUES)
"""The columns that every file has."""
_MINUS_ONE = -1.0
_PAIR = 2
_ID: pa.DataType = pa.int64()
_NUMBER: pa.DataType = pa.float32()


class LibsvmFile:
    """One file, read a few megabytes at a time; nothing loops over lines in Python.

    `even` where every line has as many entries, so that they are columns by position too.
    """

    def __init__(self, path: Path) -> None:
        """Count the lines and parse the first. Raises ExamplesError where there is none."""
        self.path, self.num_rows, self._width, self.even = path, 0, 0, True
        try:
            for piece in _pieces(path):
                lines = _lines(piece)
                if not self.num_rows and len(lines):
                    self._width = int(_parse(path, lines[:1], 0).offset_n[1])
                self.num_rows += len(lines)
                widths: Any = pc.min_max(pc.count_substring(lines, ":")).as_py()
                self.even &= widths["min"] in {None, self._width} and widths["max"] in {None, self._width}
        except OSError as error:
            raise ExamplesError(path, f"cannot be read: {error.strerror}") from error

    @property
    def schema(self) -> pa.Schema:
        """The columns by the number of entries on the first line."""
        places = range(1, self._width + 1)
        return pa.schema(
            [
                pa.field(_LABEL, _NUMBER),
                pa.field(_IDS, pa.list_(_ID)),
                pa.field(_VALUES, pa.list_(_NUMBER)),
                *(pa.field(f"id_{k}", _ID) for k in places),
                *(pa.field(f"value_{k}", _NUMBER) for k in places),
            ]
        )

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows in their order. Raises ExamplesError naming the line's row, counted from 0."""
        first_row = 0
        positional = any(name not in {_LABEL, _IDS, _VALUES} for name in columns)
        for piece in _pieces(self.path):
            found = _parse(self.path, _lines(piece), first_row)
            n, offsets = len(found.label_n), pa.array(found.offset_n)
            arrays: dict[str, Any] = {
                _LABEL: pa.array(found.label_n),
                _IDS: pa.ListArray.from_arrays(offsets, pa.array(found.id_e)),
                _VALUES: pa.ListArray.from_arrays(offsets, pa.array(found.value_e)),
            }
            if positional:
                self._check_widths(np.diff(found.offset_n), first_row)
                id_kn, value_kn = (
                    np.ascontiguousarray(flat.reshape(n, self._width).T)
                    for flat in (found.id_e, found.value_e)
                )
                for k in range(self._width):
                    arrays[f"id_{k + 1}"] = pa.array(id_kn[k])
                    arrays[f"value_{k + 1}"] = pa.array(value_kn[k])
            yield pa.RecordBatch.from_arrays([arrays[name] for name in columns], names=list(columns))
            first_row += n

    def _check_widths(self, width_n: Any, first_row: int) -> None:
        other_n = width_n != self._width
        if other_n.any():
            row = int(other_n.argmax())
            raise ExamplesError(
                self.path,
                f"has {width_n[row]} entries where the first row has {self._width}, so there is no column a "
                f"position; use the lists `{_IDS}` and `{_VALUES}`",
                row=first_row + row,
            )


def entries_by_position(columns: Sequence[str]) -> list[str]:
    """Leave out the lists where each of their entries is a column of its own."""
    return [c for c in columns if c not in {_IDS, _VALUES}] if "id_1" in columns else list(columns)


def _pieces(path: Path) -> Iterator[bytes]:
    """Whole lines, a few megabytes of them at a time."""
    rest = b""
    with path.open("rb") as file:
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        while piece := file.read(_PIECE_BYTES):
            whole, newline, tail = (rest + piece).rpartition(b"\n")
            if newline:
                yield whole + newline
            rest = tail
    if rest.strip():
        yield rest + b"\n"


def _lines(piece: bytes) -> Any:
    """The lines of a piece that hold anything, without the blanks around them -> Arrow strings."""
    text = pa.array([piece.decode("utf-8", errors="replace")], pa.large_string())
    lines: Any = pc.utf8_trim_whitespace(pc.list_flatten(pc.split_pattern(text, "\n")))
    return lines.filter(pc.not_equal(lines, pa.scalar("")))


def _first_unreadable(text: Any, kind: pa.DataType) -> int:
    """Where the first text is that is no number of a type; there is one."""
    start, end = 0, len(text)
    while end - start > 1:
        middle = (start + end) // 2
        try:
            text.slice(start, middle - start).cast(kind)
        except pa.ArrowInvalid:
            end = middle
        else:
            start = middle
    return start


@dataclass(frozen=True, slots=True)
class _Parsed:
    """n rows: labels, offsets [n + 1] into the entries, and each entry's index and value."""

    label_n: Any
    offset_n: Any
    id_e: Any
    value_e: Any


def _parse(path: Path, lines: Any, first_row: int) -> _Parsed:
    pieces = pc.ascii_split_whitespace(lines)
    start_n, token = pieces.offsets.to_numpy(), pieces.values
    first = token.take(pa.array(start_n[:-1]))
    labelled_n = ~np.asarray(pc.match_substring(first, ":").to_numpy(zero_copy_only=False), np.bool_)
    entry = np.ones(len(token), np.bool_)
    entry[start_n[:-1][labelled_n]] = False
    offset_n = (start_n - np.r_[0, np.cumsum(labelled_n)]).astype(np.int32)
    labelled = np.flatnonzero(labelled_n)

    def refuse(problem: str, wrong: Any, offsets: Any) -> NoReturn:
        at = int(np.argmax(np.asarray(wrong)))
        row = int(labelled[at] if offsets is None else np.searchsorted(offsets, at, side="right") - 1)
        raise ExamplesError(path, problem, row=first_row + row)

    def numbers(text: Any, kind: pa.DataType, what: str, offsets: Any) -> Any:
        try:
            return text.cast(kind).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            at = _first_unreadable(text, kind)
            got, wrong = text[at].as_py()[:40], np.arange(len(text)) == at
            refuse(
                f"expected {what}, got {got!r}; a line is `label index:value index:value ...`", wrong, offsets
            )

    label = pc.replace_substring_regex(token.filter(pa.array(~entry)), r"^\+", "")
    label_n = np.full(len(labelled_n), np.nan, np.float32)
    label_n[labelled] = numbers(label, pa.float32(), "a number as label", None)
    pair = token.filter(pa.array(entry))
    parts = pc.split_pattern(pair, ":", max_splits=1)
    lone_e = pc.list_value_length(parts).to_numpy(zero_copy_only=False) != _PAIR
    if lone_e.any():
        got = pair[int(lone_e.argmax())].as_py()[:40]
        refuse(f"expected index:value, got {got!r}", lone_e, offset_n)
    flat = pc.list_flatten(parts)
    at_e = np.arange(0, len(flat), _PAIR)
    id_e = numbers(flat.take(pa.array(at_e)), pa.int64(), "a whole number as index", offset_n)
    value_e = numbers(flat.take(pa.array(at_e + 1)), pa.float32(), "a number as value", offset_n)
    return _Parsed(np.where(label_n == _MINUS_ONE, np.float32(0), label_n), offset_n, id_e, value_e)
