"""Text in Arrow batches that is not UTF-8: files may hold it, and no JSON request could ever say it again.

Arrow is told by what it offers; no Arrow library is imported here.
"""

from __future__ import annotations

from typing import Any

__all__ = ["misencoded"]


def misencoded(batch: Any) -> tuple[str, int] | None:
    """Return the first column of a record batch that holds what is not UTF-8, and its row; None as a rule."""
    if _is_valid(batch):
        return None
    for name in batch.schema.names:
        column = batch.column(name)
        row, end = 0, len(column)
        if _is_valid(column):
            continue
        while end - row > 1:  # the fault is in [row, end)
            middle = (row + end) // 2
            before = _alone(column.slice(row, middle - row))
            row, end = (middle, end) if _is_valid(before) else (row, middle)
        return name, row
    return None


def _alone(piece: Any) -> Any:
    """What these rows have of a list or a dictionary and nothing else: slices reach no further than both."""
    if str(piece.type).startswith("dictionary"):
        return piece.dictionary_decode()
    return piece.flatten() if str(piece.type).startswith(("list<", "large_list<")) else piece


def _is_valid(array: Any) -> bool:
    try:
        array.validate(full=True)
    except ValueError:  # as Arrow's own errors are
        return False
    return True
