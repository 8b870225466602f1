"""Which columns are labels, why, and which others might be: what happened afterwards gives a label away.

A column of 0 and 1 that is neither its user's nor its item's is as likely a second outcome of the same event
(`ordered` beside `clicked`) as something known before it, and nothing in the rows tells the two apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rankd_training.errors import ExamplesError

__all__ = ["choose_labels", "is_outcome_name", "is_two_valued"]

_LABELS = frozenset(
    {"click", "clicked", "is_click", "target", "y", "conversion", "converted", "buy", "bought"}
)
_OUTCOME = re.compile(
    r"(^|_)(label|target|outcome|response|true|click|order|buy|bought|purchas|convert|conversion|sold|"
    r"lik|love|rated|watch|install|subscri|churn|cart|return(ed|s)?($|_)|refund|cancel|default(ed)?($|_payment)|fraud|surviv)",
    re.IGNORECASE,
)


def choose_labels(path: Path, table: pa.Table, named: Sequence[str]) -> dict[str, str]:
    """Return the labels, each with the reason for it.

    Args:
        path: of the file, for messages.
        table: (a sample of) its rows.
        named: what a person says; without it, labels are told by their names.

    Raises:
        ExamplesError: one that was named, or is called so, is not of 0 and 1, or none can be told.
    """
    for column in named:
        _check(path, table, column)
    if named:
        return dict.fromkeys(named, "named by --label")
    binary = [c for c in table.column_names if _stray(table[c]) is None]
    called = [c for c in table.column_names if c.lower() in _LABELS or c.lower().startswith("label")]
    told = [c for c in called if c in binary]
    if called and not told:
        if _two_words(table[called[0]]) is not None:
            _check(path, table, called[0])
        stray = _stray(table[called[0]])
        problem = f"is called as labels are, but has {stray}; make it 0 and 1, or say another with --label"
        raise ExamplesError(path, problem, column=called[0])
    if len(told) == 1:
        _check(path, table, told[0])
    told = [c for c in told if is_two_valued(table[c])]
    if told:
        return dict.fromkeys(told, "its name is one that labels have, and every row has 0 or 1")
    candidates = f"; columns of 0 and 1 are {', '.join(binary)}" if binary else ", and none is of 0 and 1"
    raise ExamplesError(path, f"which column is the label? None is named so{candidates}; say it with --label")


def is_two_valued(column: Any) -> bool:
    """Whether a column has 0 and 1 (or false and true), both of them, and nothing else but nulls."""
    return _plain(column.type) and set(pc.unique(column).to_pylist()) - {None} == {0, 1}


def is_outcome_name(column: str) -> bool:
    """Whether a column is called after something that happens to what was shown, such as `is_ordered`."""
    return _OUTCOME.search(column) is not None


def _check(path: Path, table: pa.Table, column: str) -> None:
    if (stray := _stray(table[column])) is not None:
        words = _two_words(table[column])
        if words is not None:
            problem = f"a label is 0 or 1; this column has {words[0]!r} and {words[1]!r}"
            raise ExamplesError(path, f"{problem}: store whether it is {words[1]!r}", column=column)
        binary = [c for c in table.column_names if _stray(table[c]) is None]
        have = f"; columns of 0 and 1 are {', '.join(binary)}" if binary else ""
        problem = f"a label is 0 or 1 (or false or true) in every row; this column has {stray}{have}"
        raise ExamplesError(path, problem, column=column)
    if len(only := pc.unique(table[column])) == 1:
        problem = f"a label has both 0 and 1; all {len(table):,} rows looked at have {only[0].as_py():g}"
        raise ExamplesError(path, problem, column=column)


def _two_words(column: Any) -> tuple[str, str] | None:
    """The values of a column of text that has two, such as yes and no."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return None
    found = sorted(value for value in pc.unique(column).to_pylist() if value is not None)
    return (found[0], found[1]) if len(found) == 2 else None  # noqa: PLR2004


def _stray(column: Any) -> str | None:
    """Return what keeps a column from being a label: a value as it is shown to people, or its type."""
    if not _plain(column.type):
        return f"values of type {column.type}"
    others = [value for value in pc.unique(column).to_pylist() if value not in {0, 1}]
    return None if not others else "nulls" if others[0] is None else str(others[0])


def _plain(kind: Any) -> bool:
    return bool(pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind))
