"""The values of a schema file: one reader a kind of value, that names its place."""

from __future__ import annotations

import difflib
import math
import re
import reprlib
import sys
from enum import StrEnum
from typing import Any, TypeVar

from rankd_contract.errors import SchemaError
from rankd_contract.hashing import MAX_STRING_BYTES
from rankd_contract.schema import DType

__all__ = [
    "NAME",
    "check_value",
    "duration",
    "items",
    "mapping",
    "member",
    "name_of",
    "number",
    "positive",
    "shown",
    "text_of",
]

_E = TypeVar("_E", bound=StrEnum)

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PYTHON = {DType.STRING: (str,), DType.INT: (int,), DType.FLOAT: (int, float), DType.BOOL: (bool,)}
_LARGEST_FLOAT32 = float.fromhex("0x1.fffffep127")

# A value is shown short: aliases let a file of a few lines stand for more text than fits in memory.
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2
_SHORT.maxdict = _SHORT.maxlist = 4
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 60


def mapping(tree: Any, at: str, known: tuple[str, ...]) -> dict[str, Any]:
    """Return the mapping at a place. Raises SchemaError naming the nearest known key of an unknown one."""
    if not isinstance(tree, dict):
        raise SchemaError(f"{at}: expected a mapping with {', '.join(known)}, got {shown(tree)}")
    for key in tree:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
            raise SchemaError(f"{at}: unknown key {shown(key)}; {hint}", key=key)
    return tree


def items(node: dict[str, Any], key: str, at: str) -> list[Any]:
    """Return a list that is not empty."""
    value = node.get(key)
    if not isinstance(value, list) or not value:
        raise SchemaError(f"{at}.{key}: expected a list that is not empty, got {shown(value)}")
    return value


def text_of(node: dict[str, Any], key: str, at: str, default: str) -> str:
    """Return a name of something outside the schema, such as a column; `default` where the key is absent."""
    value = node.get(key, default)
    if not isinstance(value, str) or (not value and key in node):
        raise SchemaError(f"{at}.{key}: expected a name, got {shown(value)}")
    return value


def name_of(node: dict[str, Any], at: str) -> str:
    """Return the mapping's own name."""
    name = node.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise SchemaError(
            f"{at}.name: expected a letter, then letters, digits, '_', '.', '-', got {shown(name)}"
        )
    return name


def member(kind: type[_E], value: Any, at: str) -> _E:
    """Return a member of an enum."""
    try:
        return kind(value)
    except ValueError:
        raise SchemaError(f"{at}: expected one of {', '.join(kind)}, got {shown(value)}") from None


def positive(value: Any, at: str) -> int:
    """Return a whole number above 0 that leaves int32 room for the two ids below the first value."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31 - 2:
        raise SchemaError(f"{at}: expected a whole number above 0, got {shown(value)}")
    return value


def number(value: Any, at: str) -> float:
    """Return a finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < math.inf:
        raise SchemaError(f"{at}: expected a finite number, got {shown(value)}")
    if abs(value) > sys.float_info.max:
        raise SchemaError(f"{at}: expected a smaller number, got {shown(value)}")
    return float(value)


def duration(value: Any, at: str) -> float:
    """Return seconds, given as a number or with a unit."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is not None:
        seconds = float(match[1]) * _SECONDS[match[2]]
    elif isinstance(value, str):
        raise SchemaError(f"{at}: expected seconds or a duration such as 15m, 12h, 30d, got {shown(value)}")
    else:
        seconds = number(value, at)
    if not 0 < seconds < math.inf:
        raise SchemaError(f"{at}: expected a duration above 0, got {shown(value)}")
    return seconds


def check_value(value: Any, dtype: DType, at: str) -> None:
    """Raise SchemaError where a raw value (of a vocabulary, or a default) does not fit its type."""
    if not isinstance(value, _PYTHON[dtype]) or isinstance(value, bool) is not (dtype is DType.BOOL):
        hint = "; YAML reads yes, no, on, off as booleans: quote them" if isinstance(value, bool) else ""
        raise SchemaError(f"{at}: expected {dtype.value}, got {shown(value)}{hint}")
    narrower = _narrower(value, dtype)
    if narrower:
        raise SchemaError(f"{at}: expected {narrower}, got {shown(value)}")


def _narrower(value: Any, dtype: DType) -> str:
    if dtype is DType.FLOAT and not abs(value) <= _LARGEST_FLOAT32:
        return "a finite float32"
    if dtype is DType.INT and not -(2**63) <= value < 2**63:
        return "a 64-bit integer"
    if dtype is DType.STRING and any("\ud800" <= c <= "\udfff" for c in value):
        return "text that UTF-8 can write"
    if dtype is DType.STRING and len(value.encode()) > MAX_STRING_BYTES:
        return f"at most {MAX_STRING_BYTES} bytes"
    return ""


def shown(value: Any) -> str:
    """Return a value as messages show it: in one short line, whatever its size."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # an integer with more digits than Python is willing to write
        return "a very long number"
