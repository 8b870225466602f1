"""CSV and other delimited text, streamed column by column with the types a format declares.

Headers are matched without the blanks around them, as published files have some. What cannot be read is
refused with the file, the column and the parser's own words.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv

from rankd_training.errors import MalformedSource

__all__ = ["COUNT", "INT", "NUMBER", "TEXT", "Types", "read", "stream"]

INT: pa.DataType = pa.int64()
TEXT: pa.DataType = pa.string()
NUMBER: pa.DataType = pa.float32()
# Whole numbers that are written with a point, as they are where a column once held a NaN.
COUNT: pa.DataType = pa.float64()

Types = Mapping[str, pa.DataType]

_BLOCK_BYTES = 8 << 20
_NULLS = ["", "NULL", "null", "NaN", "nan"]


def stream(
    path: Path, types: Types, *, delimiter: str = ",", header: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Read some columns of a file, compressed or not, some megabytes at a time.

    Args:
        path: the file.
        types: the columns to read; COUNT columns come as int64.
        delimiter: between columns.
        header: names of all columns where the file has no line of them.

    Raises:
        MalformedSource: the file cannot be read, lacks a column, or a value has another type.
    """
    names = list(header) if header is not None else _header(path, delimiter)
    for column in types:
        if column not in names:
            near = difflib.get_close_matches(column, names, 1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise MalformedSource(str(path), f"no column '{column}'; {hint}it has {', '.join(names)}")
    try:
        with pv.open_csv(
            path,
            read_options=pv.ReadOptions(
                use_threads=False,
                block_size=_BLOCK_BYTES,
                column_names=names,
                skip_rows=0 if header is not None else 1,
            ),
            parse_options=pv.ParseOptions(delimiter=delimiter),
            convert_options=pv.ConvertOptions(
                column_types=dict(types),
                include_columns=list(types),
                null_values=_NULLS,
                strings_can_be_null=True,
            ),
        ) as batches:
            for batch in batches:
                yield _whole(path, batch)
    except (OSError, pa.ArrowException) as error:
        raise MalformedSource(str(path), str(error)) from error


def read(path: Path, types: Types, *, delimiter: str = ",", header: Sequence[str] | None = None) -> pa.Table:
    """Read some columns of a whole file. Raises MalformedSource."""
    return pa.Table.from_batches(list(stream(path, types, delimiter=delimiter, header=header)))


def _header(path: Path, delimiter: str) -> list[str]:
    try:
        with pa.input_stream(str(path), compression="detect") as file:
            first = file.read(1 << 16).split(b"\n", 1)[0].decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise MalformedSource(str(path), f"cannot be read: {error}") from error
    return [name.strip().strip('"') for name in first.strip().split(delimiter)]


def _whole(path: Path, batch: pa.RecordBatch) -> pa.RecordBatch:
    """COUNT columns as whole numbers."""
    columns: list[Any] = []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if field.type != COUNT:
            columns.append(column)
            continue
        try:
            columns.append(pc.cast(column, INT))
        except pa.ArrowInvalid as error:
            raise MalformedSource(
                str(path), f"column '{field.name}': expected whole numbers, {error}"
            ) from error
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
