"""One column of raw values -> the field a person might write for it, with the reason.

Text and few whole numbers are looked up, ids are hashed, counts are cut into buckets of equal weight,
measures are scaled. What cannot be a field (a constant, a type no field reads) says why.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rankd_training.data.column_kinds import is_milliseconds, is_time, is_written_number, is_written_time
from rankd_training.data.field_names import quoted
from rankd_training.data.id_columns import is_id_name

__all__ = ["Proposal", "propose_field", "unfit"]

_MOST_VALUES = 256  # a longer vocabulary is nobody's to read
_MOST_LEVELS = 32
_MOST_BUCKETS = 1 << 22
_SPARSE = 4  # whole numbers that leave out more than three in four are amounts, not names
_EDGES = 20
_LONGEST_LIST = 50
_HEAVY_TAIL = 5.0  # standard deviations between mean and maximum
_FEW_LEVELS = 2
_NAMED, _ROWS_A_VALUE = 12, 100  # so few numbers, or so many rows of each, may name things
_COUNTED = 100_000  # nobody counts as far in small steps: larger ones close together are names
_OUTLIERS = 100  # times what all but a hundredth of the rows span
_LARGEST = float(np.finfo(np.float32).max)
_CASTS = {
    "uint64": "cast it to int64, or to string where numbers are too large for that",
    "date32[day]": "cast it to timestamp",
    "date64[ms]": "cast it to timestamp",
}
_HISTORY_NAME = re.compile(r"(^|_)(recent|last|hist|history|seq|sequence|clicked|viewed)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Proposal:
    """Lines of YAML for one column (none where it cannot be a field), and why."""

    fields: tuple[str, ...]
    reason: str


def propose_field(
    name: str, column: Any, *, called: str, shares: str | None = None, names_things: bool = False
) -> Proposal:
    """Propose a field for a column (Arrow, dictionaries decoded, not chunked).

    Args:
        name: of the column.
        column: its values, or a sample of them.
        called: what the field is called; more are called so and `_hour`, and so on.
        shares: the field whose table a list of its ids should use, if it is one.
        names_things: whether its numbers are ids, whatever it is called.
    """
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    kind, seen = column.type, column.drop_null()
    if (reason := unfit(name, column)) is not None:
        return Proposal((), reason)
    if is_time(name, column):
        derived = ("hour_of_day", "day_of_week")
        fields = tuple(
            _field(f"{called}_{d.split('_')[0]}", name, kind="categorical", derive=d) for d in derived
        )
        return Proposal(fields, "a time: its hour and weekday")
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _list(name, called, seen, shares)
    values = seen.unique()
    if len(values) < _FEW_LEVELS:
        return Proposal((), f"the same in every row looked at ({_shown(values[0].as_py())})")
    if pa.types.is_boolean(kind):
        field = _field(called, name, kind="categorical", dtype="bool", vocabulary=[False, True])
        return Proposal((field,), "true or false")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _lookup(name, called, "string", values, "text")
    if pa.types.is_integer(kind):
        if names_things:
            return _lookup(name, called, "int64", values, "ids")
        return _integer(name, called, seen, values)
    return _measure(name, called, seen)


def unfit(name: str, column: Any) -> str | None:
    """Say why a column can be no field as it is stored, and what to do; None where it can."""
    kind, seen = column.type, column.drop_null()
    if not len(seen):
        return "null in every row looked at"
    if is_milliseconds(name, column):
        return "a time in milliseconds; store it in seconds, or as a timestamp, to have its hour"
    if is_written_time(column):
        return "a time as text; store it as a timestamp, by pandas.to_datetime, for its hour and for imports"
    if is_written_number(column) and not is_id_name(name) and len(seen.unique()) > _MOST_VALUES:
        return "numbers as text; store it as float64 to have it as a measure, what is none as null"
    if pa.types.is_floating(kind) and (np.abs(_as_float64(seen)) > _LARGEST).any():
        return "infinite, or beyond 32-bit floats, in some rows; make these null, or cut them off"
    if not _is_read(kind):
        return (
            f"no field reads columns of type {kind}; {_CASTS.get(str(kind), 'cast it to one that they do')}"
        )
    return None


def _as_float64(column: Any) -> NDArray[np.float64]:
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)


def _is_read(kind: pa.DataType) -> bool:
    """Whether any field reads a type. Unsigned numbers of 64 bits may be larger than fields hold."""
    of = pa.types
    if of.is_list(kind) or of.is_large_list(kind) or of.is_timestamp(kind) or of.is_boolean(kind):
        return True
    text = of.is_string(kind) or of.is_large_string(kind)
    return text or of.is_floating(kind) or (of.is_integer(kind) and not of.is_uint64(kind))


def _lookup(name: str, called: str, dtype: str, values: Any, what: str) -> Proposal:
    if len(values) <= _MOST_VALUES:
        vocabulary = sorted(values.to_pylist())
        field = _field(called, name, kind="categorical", dtype=dtype, vocabulary=vocabulary)
        return Proposal((field,), f"{what}, {len(values)} values")
    buckets = _buckets(len(values))
    field = _field(called, name, kind="categorical", dtype=dtype, hash=buckets)
    return Proposal((field,), f"{what}, {len(values):,} values, hashed into {buckets:,} buckets")


def _integer(name: str, called: str, seen: Any, values: Any) -> Proposal:
    value_v = values.to_numpy(zero_copy_only=False).astype(np.float64)
    dense = np.ptp(value_v) < _SPARSE * len(value_v)
    if is_id_name(name) or len(value_v) == _FEW_LEVELS:
        return _lookup(name, called, "int64", values, "whole numbers")
    if dense and len(value_v) <= _MOST_VALUES:
        few, large = len(value_v) <= _NAMED, np.abs(value_v).max() > _COUNTED
        if few or large or len(seen) >= _ROWS_A_VALUE * len(value_v):
            return _lookup(name, called, "int64", values, "whole numbers")
        # An embedding a value would be learned from a few rows each.
        return _measure(name, called, seen, dtype="int64")
    field = _in_parts(name, called, "int64", seen.to_numpy(zero_copy_only=False).astype(np.float64))
    return Proposal((field,), f"a count, {len(values):,} values, cut where each part has as many rows")


def _in_parts(name: str, called: str, dtype: str, number_n: NDArray[np.float64]) -> str:
    """A field that is cut where each part has as many rows."""
    number_n = np.sort(number_n)
    # One value (zero, mostly) may fill more than a part: it gets its own, and the others are cut evenly.
    starts = np.flatnonzero(np.r_[True, np.diff(number_n) > 0])
    usual = number_n[starts[np.argmax(np.diff(np.r_[starts, len(number_n)]))]]
    others_n = number_n[number_n != usual]
    edges = np.quantile(others_n, np.linspace(0, 1, _EDGES + 1)[:-1], method="higher")
    after = others_n[others_n > usual][:1]
    edges = np.unique(np.concatenate([edges, [usual], after]))
    written: Callable[[float], float] = int if dtype == "int64" else float
    transform = {"bucketize": [written(edge) for edge in edges[edges > number_n[0]]]}
    return _field(called, name, kind="numeric", dtype=dtype, transform=transform)


def _measure(name: str, called: str, seen: Any, dtype: str = "float32") -> Proposal:
    number_n = seen.to_numpy(zero_copy_only=False).astype(np.float64)
    number_n = number_n[np.isfinite(number_n)]
    if not len(number_n) or number_n.std() == 0:
        return Proposal((), "the same in every row looked at, or never finite")
    levels = np.unique(number_n.astype(np.float32))
    if dtype == "float32" and len(levels) <= _MOST_LEVELS:  # codes, as they are stored where some are missing
        transform = {"bucketize": [float(str(level)) for level in levels[1:]]}
        field = _field(called, name, kind="numeric", dtype="float32", transform=transform)
        return Proposal((field,), f"numbers, {len(levels)} values, a bucket each")
    low, high = np.quantile(number_n, [0.005, 0.995])
    if number_n.min() < 0 and np.ptp(number_n) > _OUTLIERS * max(high - low, 0.0) > 0:
        field = _in_parts(name, called, dtype, number_n.astype(np.float32).astype(np.float64))
        ends = f"{number_n.min():g} to {number_n.max():g}, mostly {low:g} to {high:g}"
        return Proposal((field,), f"a measure with outliers ({ends}), cut where each part has as many rows")
    middle = float(np.median(number_n))
    heavy = number_n.min() >= 0 and number_n.max() > number_n.mean() + _HEAVY_TAIL * number_n.std()
    scaled_n = np.log1p(number_n) if heavy else number_n
    standard = {"standard": {"mean": _short(scaled_n.mean()), "std": _short(scaled_n.std())}}
    steps: Any = ["log1p", standard] if heavy else standard
    default = int(middle) if dtype == "int64" else _short(middle)
    field = _field(called, name, kind="numeric", dtype=dtype, default=default, transform=steps)
    said = "a measure with a long tail" if heavy else "a measure"
    if (np.floor(number_n) == number_n).all():
        said += (
            ", of whole numbers; if they name things, make it `kind: categorical, dtype: int64, hash: ...`"
        )
    return Proposal((field,), said)


def _list(name: str, called: str, seen: Any, shares: str | None) -> Proposal:
    items = seen.flatten()
    kind = items.type
    if items.null_count or not (pa.types.is_integer(kind) or pa.types.is_string(kind)):
        return Proposal((), f"no field reads lists of {kind}{' with nulls' * bool(items.null_count)}")
    if not len(items):
        return Proposal((), "empty in every row looked at")
    lengths = pc.list_value_length(seen).to_numpy(zero_copy_only=False)
    longest = max(1, min(int(np.quantile(lengths, 0.95)), _LONGEST_LIST))
    history = shares is not None or _HISTORY_NAME.search(name) is not None
    settings: dict[str, Any] = {"kind": "sequence" if history else "multi_value"}
    settings["dtype"] = "int64" if pa.types.is_integer(kind) else "string"
    settings |= {"shares": shares} if shares else {"hash": _buckets(len(items.unique()))}
    field = _field(called, name, **settings, max_length=longest)
    return Proposal(
        (field,),
        "a history; the first of a row count, so the newest must come first"
        if history
        else "several values a row",
    )


def _buckets(num_values: int) -> int:
    """Four times as many as values, so that few share one; a power of two."""
    return int(min(max(64, 2 ** math.ceil(math.log2(4 * num_values))), _MOST_BUCKETS))


def _field(called: str, column: str, **settings: Any) -> str:
    """One line of YAML; JSON is YAML, and quotes what needs it."""
    parts = [f"name: {quoted(called)}", *([f"source: {quoted(column)}"] if column != called else [])]
    parts += [f"{key}: {_yaml(value)}" for key, value in settings.items()]
    return f"{{{', '.join(parts)}}}"


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(number: float) -> float:
    return float(f"{number:.6g}")


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."  # noqa: PLR2004  # a line of a comment
