"""Names of columns -> names of fields, and both as YAML reads them back."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import count

from rankd_contract.schema_values import NAME
from rankd_contract.strict_yaml import read_yaml

__all__ = ["field_names", "quoted"]

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_DERIVED = ("", "_hour", "_day")
_LONGEST = 64 - max(map(len, _DERIVED))


def field_names(columns: Sequence[str]) -> dict[str, str]:
    """Name a field for each column: as the column where that is a name, else with other characters in it.

    No two are alike, also not those that are made of a time's name and `_hour` or `_day`.
    """
    found: dict[str, str] = {}
    # Whose name can stay comes first, or another might take it.
    for column in sorted(columns, key=lambda c: not NAME.fullmatch(c)):
        plain = column if NAME.fullmatch(column) else re.sub(r"[^A-Za-z0-9_.-]", "_", f"f_{column}")
        short = plain if len(plain) <= _LONGEST else plain[: _LONGEST - 4]
        others = {*columns, *(name + end for name in found.values() for end in _DERIVED)} - {column}
        candidates = (short if n == 1 else f"{short}_{n}" for n in count(1))
        found[column] = next(c for c in candidates if not {c + end for end in _DERIVED} & others)
    return {column: found[column] for column in columns}


def quoted(text: str) -> str:
    """A text as YAML reads it back; JSON is YAML, and is written where a plain word would not be the text."""
    plain = _PLAIN.fullmatch(text) and read_yaml(text) == text
    return text if plain else json.dumps(text, ensure_ascii=False)
