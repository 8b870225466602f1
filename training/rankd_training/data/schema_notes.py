"""What a person should hear of a proposed schema: what was decided, and what she may know better."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from rankd_training.data.id_columns import is_id_name, is_id_type
from rankd_training.data.label_proposal import is_outcome_name
from rankd_training.data.whose_columns import names_rows

__all__ = ["notes_of_ids", "notes_of_labels", "notes_of_sides"]


def notes_of_sides(
    table: pa.Table, columns: Sequence[str], user: str | None, item: str | None
) -> Iterator[str]:
    """Say whose the rows are taken to be, and what a person might have meant."""
    if user is not None and item is not None:
        yield f"rows are of users ({user}) and items ({item}); else say --user and --item"
        return
    ids = [c for c in columns if c not in {user, item} and is_id_name(c) and _may_be_ids(table[c])]
    perhaps = f", perhaps {' or '.join(ids)}" if ids else ""
    if user is not None:
        yield f"{user} is a user's id, and no column is called as an item's: say --item COLUMN{perhaps}"
    elif item is not None:
        yield f"{item} is an item's id, and no column is called as a user's: say --user COLUMN{perhaps}"
    elif ids:
        yield f"no column is called as a user's id or an item's; where one is, say --user and --item{perhaps}"


def notes_of_labels(
    labels: dict[str, str], left_out: Sequence[str], kept: Sequence[str], *, sides: bool
) -> Iterator[str]:
    """Say which columns are labels and why, and which others might be."""
    yield from (f"label {label}: {reason}" for label, reason in labels.items())
    for column in left_out:
        yield f"{column}: may be a label: give --label {column}, or --ignore {column}; left out of the fields"
    asked = [c for c in kept if is_outcome_name(c)] if sides else kept
    if asked:
        yield f"{', '.join(asked)}: 0 or 1 too, and fields; what is known only after the event needs --ignore"


def notes_of_ids(own: Sequence[str], from_floats: Sequence[str]) -> Iterator[str]:
    """Say which columns name the rows themselves, and which ids were stored as floats."""
    if own:
        yield f"{', '.join(own)}: another value in each row, so no field"
    for column in from_floats:
        yield f"{column}: stored as floats, all of them whole: read as ids"


def _may_be_ids(column: Any) -> bool:
    """Whether a column names something that several rows are of."""
    return is_id_type(column.type) and not names_rows(column)
