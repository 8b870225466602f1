"""Rows told apart: by how active their user was in training, and by the values of a column.

Legend: N rows.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rankd_contract.columns import UNITS_A_SECOND
from rankd_contract.schema import Derive, FeatureSchema, Kind
from rankd_training.errors import SettingError
from rankd_training.examples.examples import Examples
from rankd_training.examples.reading import raw_batches, raw_schema

__all__ = ["Slice", "by_activity", "by_field"]

QUANTILES = 4
MOST_VALUES = 12
SECONDS_A_DAY, THURSDAY = 86_400, 3


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of the rows: what they have in common, and where they are among the rows asked about."""

    title: str
    at: npt.NDArray[np.int64]


def by_activity(examples: Examples, row_N: npt.NDArray[np.int64]) -> list[Slice]:
    """Split rows by how many training rows their user has: none, then quarters of the rows of all others.

    Rows that are nobody's are apart.
    """
    users_U, trained_U = np.unique(examples.group_n[examples.rows["train"]], return_counts=True)
    user_N = examples.group_n[row_N]  # ids or hashes of them, so they may be anything
    at_N = np.minimum(np.searchsorted(users_U, user_N), len(users_U) - 1)
    activity_N = np.where(users_U[at_N] == user_N, trained_U[at_N], 0)
    nobodys_N = examples.nobodys(row_N)
    return (
        _named("no user", nobodys_N)
        + _named("none", (activity_N == 0) & ~nobodys_N)
        + _quantiles(activity_N, (activity_N > 0) & ~nobodys_N)
    )


def by_field(path: Path, schema: FeatureSchema, name: str, row_N: npt.NDArray[np.int64]) -> list[Slice]:
    """Split rows by a field of the schema or by any other column of the file.

    Categories: the most frequent ones and the rest. Numbers of more than a few values: quarters of the rows.
    Lists: quarters of the rows by length.

    Raises:
        SettingError: there is no such field or column (names those there are), or it is of structs.
        ExamplesError: the file cannot be read.
    """
    field = schema.fields.get(name)
    column = field.source if field else name
    known = raw_schema(path).names
    if column not in known:
        near = difflib.get_close_matches(name, [*schema.fields, *known], 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise SettingError(
            f"no field or column is called {name!r}; {hint}fields: {', '.join(schema.fields)}; "
            f"columns: {', '.join(known)}"
        )
    whole = pa.Table.from_batches(list(raw_batches(path, [column])))
    array: Any = whole[column].combine_chunks().take(row_N)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        length_N = _plain(pc.list_value_length(array).fill_null(0))
        return _named("empty", length_N == 0) + _quantiles(length_N, length_N > 0, "length ")
    if field and field.derive:
        units = UNITS_A_SECOND[array.type.unit] if pa.types.is_timestamp(array.type) else 1
        missing_N = np.asarray(array.is_null())
        seconds_N = _plain(array.cast(pa.int64()).fill_null(0)) // units
        array = pa.array(_derived(seconds_N, field.derive), mask=missing_N)
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        missing_N, unit = np.asarray(array.is_null()), "s" if pa.types.is_timestamp(array.type) else "D"
        zone = " UTC" if getattr(array.type, "tz", None) else ""
        whole_N = _plain(array.cast(pa.timestamp("us"), safe=False).fill_null(0)).astype(
            f"datetime64[{unit}]"
        )
        return _named("missing", missing_N) + _quantiles(whole_N, ~missing_N, after=zone)
    if pa.types.is_nested(array.type):
        raise SettingError(f"rows cannot be told apart by {name!r}, a column of {array.type}")
    ordered = field is None or field.kind is Kind.NUMERIC or field.derive is not None
    number = pa.types.is_integer(array.type) or pa.types.is_floating(array.type)
    if number and ordered and pc.count_distinct(array).as_py() > MOST_VALUES:
        value_N = _plain(array.cast(pa.float64(), safe=False).fill_null(np.nan))
        missing_N = np.isnan(value_N)
        return _named("missing", missing_N) + _quantiles(value_N, ~missing_N)
    return _categories(array, keep_order=number and ordered)


def _categories(array: Any, *, keep_order: bool) -> list[Slice]:
    encoded = array.dictionary_encode()
    code_N = _plain(encoded.indices.fill_null(-1))
    titles: dict[int, str] = dict(enumerate(map(str, encoded.dictionary.to_pylist()))) | {-1: "missing"}
    codes, counts = np.unique(code_N, return_counts=True)
    ranked = [int(code) for code in codes[np.argsort(-counts, kind="stable")]]
    kept = ranked if len(ranked) <= MOST_VALUES else ranked[: MOST_VALUES - 1]
    if keep_order:
        values = encoded.dictionary.to_pylist()
        kept = sorted(kept, key=lambda code: (code < 0, values[code] if code >= 0 else 0))
    slices = [Slice(titles[code], np.flatnonzero(code_N == code)) for code in kept]
    return slices + _named("all others", ~np.isin(code_N, kept))


def _quantiles(
    value_N: npt.NDArray[Any], among_N: npt.NDArray[np.bool_], before: str = "", after: str = ""
) -> list[Slice]:
    """Quarters of the rows, equal values together, so there may be fewer."""
    values = value_N[among_N]
    if not len(values):
        return []
    ends = np.ceil(np.linspace(0, len(values), QUANTILES + 1)[1:]).astype(int) - 1
    edges = np.unique(np.sort(values)[ends])
    part_N = np.searchsorted(edges, value_N)
    return [
        piece
        for part in range(len(edges))
        for piece in _named(
            before + _span(value_N[among_N & (part_N == part)]) + after, among_N & (part_N == part)
        )
    ]


def _span(values: npt.NDArray[Any]) -> str:
    if not len(values):
        return ""
    low, high = values.min(), values.max()
    if np.issubdtype(values.dtype, np.datetime64):
        return f"{low}" if low == high else f"{low} to {high}"
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _named(title: str, chosen_N: npt.NDArray[np.bool_]) -> list[Slice]:
    at = np.flatnonzero(chosen_N)
    return [Slice(title, at)] if len(at) else []


def _derived(seconds_N: npt.NDArray[Any], derive: Derive) -> npt.NDArray[np.int64]:
    """As the contract derives it, for people to read."""
    seconds_N = seconds_N.astype(np.int64)
    hours: Mapping[Derive, npt.NDArray[np.int64]] = {
        Derive.HOUR_OF_DAY: seconds_N // 3600 % 24,
        Derive.DAY_OF_WEEK: (seconds_N // SECONDS_A_DAY + THURSDAY) % 7,
    }
    return hours[derive]


def _plain(array: Any) -> npt.NDArray[Any]:
    return np.asarray(array.to_numpy(zero_copy_only=False))
