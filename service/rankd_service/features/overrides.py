"""Request-time fields: what a caller knows right now, encoded to be laid over what is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rankd_contract.columns import Column
from rankd_contract.encoding import Block, Encoder
from rankd_contract.errors import ValueTypeError
from rankd_contract.schema import MISSING, Derive, DType, Field, FieldLayout, Kind
from rankd_service.domain import Fields, FieldValue
from rankd_service.errors import InvalidRequest, RejectReason, nearest, shown_key

__all__ = [
    "Override",
    "check_moment",
    "encode_ids",
    "encode_override",
    "read_overrides",
    "taken_as_is",
    "unknown_field",
]

_MOST_DIGITS, _INT64 = 19, range(-(2**63), 2**63)
_SECONDS = "whole seconds since 1970 (UTC)"
_MOMENT = Field("timestamp", Kind.CATEGORICAL, DType.INT, "timestamp", derive=Derive.HOUR_OF_DAY)
_LISTS = frozenset({Kind.SEQUENCE, Kind.MULTI_VALUE})
_IN_JSON = {
    "str": "a string",
    "bool": "a boolean",
    "int": "a whole number",
    "float": "a fraction",
    "list": "a list",
}


@dataclass(frozen=True, slots=True)
class Override:
    """One field's request-time values, encoded, and the rows they belong to."""

    at: FieldLayout
    encoded: Block
    rows: Sequence[int]

    def apply(self, block: Block) -> None:
        """Lay the values over what is stored."""
        block.ids[self.rows, self.at.ids] = self.encoded.ids
        block.values[self.rows, self.at.values] = self.encoded.values


def read_overrides(encoder: Encoder, fields_by_row: Mapping[int, Fields], place: str) -> list[Override]:
    """Turn request-time fields into columns. Raises InvalidRequest."""
    by_name: dict[str, tuple[list[int], list[FieldValue]]] = {}
    for row, fields in fields_by_row.items():
        for name, value in fields.items():
            rows, values = by_name.setdefault(name, ([], []))
            rows.append(row)
            values.append(value)
    overrides = []
    for name, (rows, values) in by_name.items():
        at = encoder.by_name.get(name)
        if at is None:
            raise unknown_field(place.format(row=rows[0]), name, sorted(encoder.by_name))
        overrides.append(encode_override(encoder, taken_as_is(at), values, rows, f"{place}.{name}"))
    return overrides


def encode_override(
    encoder: Encoder, at: FieldLayout, values: Sequence[FieldValue], rows: Sequence[int], place: str
) -> Override:
    """Encode request-time values of one field. Raises InvalidRequest; `place` may hold `{row}`."""
    field = at.field
    if field.kind in _LISTS:
        # Encoding keeps the first entries; cutting before bounds the work a long list can cause.
        values = [v[: field.max_length] if isinstance(v, list) else v for v in values]
    alone = replace(at, ids=slice(0, field.num_ids), values=slice(0, field.num_values))
    encoded = Block(
        np.full((len(values), field.num_ids), MISSING, np.int32),
        np.full((len(values), field.num_values), np.nan, np.float32),
    )
    try:
        encoder.encode_field(alone, Column.from_python(values, field), encoded, slice(None))
    except ValueTypeError as error:
        path = place.format(row=rows[error.row])
        expected = error.expected if field.derive is None else _SECONDS
        got = _IN_JSON.get(error.got, error.got)
        raise InvalidRequest(RejectReason.SCHEMA, f"expected {expected}, got {got}", path) from error
    return Override(at, encoded, rows)


def check_moment(value: FieldValue, path: str) -> None:
    """Raise InvalidRequest where a value is no time of 1970 to 9999 in whole seconds."""
    try:
        seconds = np.asarray(Column.from_python([value], _MOMENT).values)
    except ValueTypeError as error:
        got = _IN_JSON.get(error.got, error.got)
        raise InvalidRequest(RejectReason.SCHEMA, f"expected {_SECONDS}, got {got}", path) from error
    if (seconds < 0).any():
        raise InvalidRequest(RejectReason.SCHEMA, f"expected {_SECONDS}, got a time before 1970", path)


def encode_ids(encoder: Encoder, at: FieldLayout, ids: Sequence[str], rows: Sequence[int]) -> Override:
    """Encode ids as the field that reads them; an id that is no number is missing from a field of numbers."""
    values = [_whole(i) for i in ids] if at.field.dtype is DType.INT else ids
    return encode_override(encoder, at, values, rows, "{row}")


def _whole(text: str) -> int | None:
    """The number that an id is written as, if it is one of 64 bits in the one way that it is written."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _MOST_DIGITS):
        return None
    number = int(text)
    return number if str(number) == text and number in _INT64 else None


def taken_as_is(at: FieldLayout) -> FieldLayout:
    """Drop the derivation: the request gives the derived value itself, such as the hour."""
    return replace(at, field=replace(at.field, derive=None)) if at.field.derive else at


def unknown_field(place: str, name: str, known: Sequence[str]) -> InvalidRequest:
    """Return the refusal of a request-time field that is in no view."""
    path = f"{place}.{shown_key(name, known)}"
    return InvalidRequest(RejectReason.SCHEMA, f"no such field; {nearest(name, known)}", path)
