"""One view's rows in a Parquet file: the columns it must have, its ids and event times, and its batches.

Rows are counted from 0 over the whole file wherever one is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rankd_contract.arrow_text import misencoded
from rankd_contract.arrow_whole import is_float, whole_numbers
from rankd_contract.columns import UNITS_A_SECOND, YEAR_10000_S, Column
from rankd_contract.errors import SchemaMismatch, ValueTypeError
from rankd_contract.hashing import Strings, hash_strings, salt
from rankd_contract.keys import MAX_ID_BYTES
from rankd_contract.schema import FeatureView
from rankd_service.errors import StartupFailed

__all__ = ["ViewFile"]


class ViewFile:
    """Reads a Parquet file as rows of one view; checks its columns at once and its ids on request."""

    def __init__(self, path: Path, view: FeatureView, batch_rows: int) -> None:
        """Open the file. Raises StartupFailed for no Parquet, SchemaMismatch for a missing column."""
        self._path, self._view, self._batch_rows = path, view, batch_rows
        try:
            self._file = pq.ParquetFile(path)
        except FileNotFoundError as error:
            raise StartupFailed(f"{path}: there is no such file") from error
        except (OSError, pa.ArrowException) as error:
            raise StartupFailed(f"{path}: cannot be read as a Parquet file: {error}") from error
        try:
            self._check_names()
            self._check_columns()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> ViewFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def hashes(self) -> NDArray[np.uint64]:
        """Check all ids and event times -> the entity hash of each row. Raises ValueTypeError."""
        key, seed, first_row = self._view.key, salt(self._view.entity.value), 0
        parts = [np.zeros(0, np.uint64)]
        for batch in self._read([key, self._view.event_time]):
            parts.append(hash_strings(self._id_strings(batch, first_row), seed))
            self.event_times_ms(batch, first_row)
            first_row += len(batch)
        hashes = np.concatenate(parts)
        order = np.argsort(hashes, kind="stable")
        again = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
        if again.size:
            row, other = min((int(order[i + 1]), int(order[i])) for i in again.tolist())
            raise ValueTypeError(key, row, "an id that no other row has", f"the id of row {other}")
        return hashes

    def batches(self, first_row: int = 0) -> Iterator[Any]:
        """Give out the rows from one on as Arrow record batches, in the file's order."""
        groups, skipped = self._groups_from(first_row)
        for batch in self._read(self._columns(), groups):
            if skipped >= len(batch):
                skipped -= len(batch)
                continue
            yield batch.slice(skipped) if skipped else batch
            skipped = 0

    def ids(self, batch: Any) -> list[str]:
        """Return a batch's ids."""
        found: list[str] = self._key_text(batch.column(self._view.key), 0).to_pylist()
        return found

    def event_times_ms(self, batch: Any, first_row: int) -> NDArray[np.int64]:
        """Return event times in milliseconds since 1970. Raises ValueTypeError naming the row."""
        name, column = self._view.event_time, batch.column(self._view.event_time)
        if column.null_count:
            raise ValueTypeError(name, first_row + _first_null(column), "a time", "null")
        if pa.types.is_timestamp(column.type):
            a_second = UNITS_A_SECOND[column.type.unit]
            ticks = pc.cast(column, pa.int64()).to_numpy(zero_copy_only=False)
        elif pa.types.is_integer(column.type):
            a_second, ticks = 1, column.to_numpy(zero_copy_only=False)
        else:
            raise ValueTypeError(name, 0, "a timestamp or whole seconds since 1970", str(column.type))
        # 1970 to 9999: a number beyond is of another unit, or nobody's date.
        # Compared in the column's own type and unit: turned into another, the largest numbers wrap around.
        early, late = ticks < 0, ticks > min(YEAR_10000_S * a_second - 1, np.iinfo(ticks.dtype).max)
        if (early | late).any():
            at = int(np.argmax(early | late))
            got = "a time before 1970" if early[at] else "a time after 9999, or a number of a finer unit"
            expected = "a time from 1970 to 9999 (a timestamp, or whole seconds since 1970)"
            raise ValueTypeError(name, first_row + at, expected, got)
        whole, rest = np.divmod(ticks.astype(np.int64), a_second)
        times_ms: NDArray[np.int64] = whole * 1000 + rest * 1000 // a_second
        return times_ms

    def _columns(self) -> list[str]:
        view = self._view
        return list(dict.fromkeys([view.key, view.event_time, *(f.source for f in view.fields)]))

    def _check_names(self) -> None:
        for name, columns in Counter(self._file.schema_arrow.names).items():
            if columns > 1:
                raise SchemaMismatch(f"{self._path}: {columns} columns are called {name}; rename them")

    def _check_columns(self) -> None:
        found = self._file.schema_arrow
        absent = [name for name in self._columns() if name not in found.names]
        if absent:
            have = ", ".join(found.names) or "none"
            needs = f"view {self._view.name} needs the columns {', '.join(absent)}"
            raise SchemaMismatch(f"{self._path}: {needs}; the file has {have}{self._remedy(absent)}")
        empty = found.empty_table().to_batches() or [pa.RecordBatch.from_pylist([], found)]
        self._id_strings(empty[0], 0)
        self.event_times_ms(empty[0], 0)
        for field in self._view.fields:
            Column.from_arrow(empty[0].column(field.source), field)

    def _remedy(self, absent: list[str]) -> str:
        time, view = self._view.event_time, self._view.name
        if time not in absent:
            return ""
        return (
            f"; {time} says when a row was true: rename the column that does, or set `event_time:` of view "
            f"{view} in the schema to its name, and train and export again"
        )

    def _id_strings(self, batch: Any, first_row: int) -> Strings:
        strings = _strings(self._key_text(batch.column(self._view.key), first_row))
        lengths = np.diff(strings.offsets)
        wrong = (lengths == 0) | (lengths > MAX_ID_BYTES)
        if wrong.any():
            at = int(np.argmax(wrong))
            expected = f"an id of 1 to {MAX_ID_BYTES} bytes"
            raise ValueTypeError(self._view.key, first_row + at, expected, f"{lengths[at]} bytes")
        return strings

    def _key_text(self, column: Any, first_row: int) -> Any:
        """The ids of a column as Arrow strings. Raises ValueTypeError for a null, or what is no id."""
        name, kind = self._view.key, column.type
        if is_float(kind):
            column = _whole(name, column, first_row)
        if column.null_count:
            raise ValueTypeError(name, first_row + _first_null(column), "an id", "null")
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            return column
        if not pa.types.is_integer(column.type):
            raise ValueTypeError(name, 0, "a column of integers or strings", str(kind))
        return pc.cast(column, pa.string())

    def _groups_from(self, first_row: int) -> tuple[list[int], int]:
        """Find the row group of a row and those after it -> them, and how many rows come before it."""
        meta, before = self._file.metadata, 0
        for group in range(meta.num_row_groups):
            rows = meta.row_group(group).num_rows
            if before + rows > first_row:
                return list(range(group, meta.num_row_groups)), first_row - before
            before += rows
        return [], 0

    def _read(self, columns: list[str], groups: list[int] | None = None) -> Iterator[Any]:
        batches = self._file.iter_batches(
            batch_size=self._batch_rows, row_groups=groups, columns=list(dict.fromkeys(columns))
        )
        first_row = sum(self._file.metadata.row_group(group).num_rows for group in range(min(groups or [0])))
        while True:
            try:
                batch = next(batches, None)
            except (OSError, pa.ArrowException) as error:
                raise StartupFailed(f"{self._path}: the Parquet file is damaged: {error}") from error
            if batch is None:
                return
            if (found := misencoded(batch)) is not None:
                name, row = found
                raise ValueTypeError(name, first_row + row, "text in UTF-8", "another encoding")
            yield batch
            first_row += len(batch)


def _whole(name: str, column: Any, first_row: int) -> Any:
    """Ids that are stored as floats, as whole numbers. Raises ValueTypeError where one is none."""
    try:
        numbers, there = whole_numbers(name, column)
    except ValueTypeError as error:
        raise error.from_row(first_row) from None
    return pa.array(numbers, mask=~there)


def _strings(text: Any) -> Strings:
    width = np.int64 if pa.types.is_large_string(text.type) else np.int32
    _, offsets, data = text.buffers()
    if len(text) == 0:
        return Strings(np.zeros(0, np.uint8), np.zeros(1, np.int64))
    cut = np.frombuffer(offsets, width)[text.offset : text.offset + len(text) + 1]
    return Strings(np.frombuffer(data or b"", np.uint8), cut.astype(np.int64))


def _first_null(column: Any) -> int:
    return int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
