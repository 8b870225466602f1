"""Protobuf's wire form, walked where it lies: the fields of a message, without reading what they hold.

The serving process has no ONNX package, and a parser would make a million objects of a million nodes before
anybody could count them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

__all__ = ["Data", "Malformed", "Span", "fields", "packed", "signed"]

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MOST_BITS = 70  # ten bytes of seven
_MORE, _BITS = 0x80, 0x7F

Span = tuple[int, int]
"""Where bytes lie: from, and up to."""


class Data(Protocol):
    """Bytes, such as those of a mapped file."""

    def __getitem__(self, at: int, /) -> int:
        """Return one byte."""


class Malformed(Exception):
    """The bytes are no protobuf, or end too soon."""


def fields(data: Data, span: Span) -> Iterator[tuple[int, int | Span]]:
    """Yield a message's fields: the number of each with its whole number, or with where its bytes lie.

    Numbers of fixed width are passed over. Raises Malformed.
    """
    at, end = span
    while at < end:
        key, at = _varint(data, at, end)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(data, at, end)
            yield key >> 3, value
            continue
        if kind == _LENGTH:
            length, at = _varint(data, at, end)
        elif kind in {_FIXED32, _FIXED64}:
            length = 4 if kind == _FIXED32 else 8
        else:
            raise Malformed("it is no protobuf")
        if length > end - at:
            raise Malformed("it is cut short")
        if kind == _LENGTH:
            yield key >> 3, (at, at + length)
        at += length


def packed(data: Data, span: Span) -> Iterator[int]:
    """Yield the whole numbers of a packed field. Raises Malformed."""
    at, end = span
    while at < end:
        number, at = _varint(data, at, end)
        yield number


def signed(value: int) -> int:
    """Read a whole number as one of 64 bits with a sign."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _varint(data: Data, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < _MOST_BITS:
        byte = data[at]
        at += 1
        value |= (byte & _BITS) << shift
        if byte < _MORE:
            return value, at
        shift += 7
    raise Malformed("it is cut short")
