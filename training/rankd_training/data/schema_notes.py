"""What a person should hear of a proposed schema: what was decided, and what she may know better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from rankd_training.data.id_columns import is_id_name, is_id_type
from rankd_training.data.label_proposal import is_outcome_name
from rankd_training.data.libsvm import LibsvmFile
from rankd_training.data.row_files import RowFile
from rankd_training.data.whose_columns import names_rows

__all__ = ["notes_of_columns", "notes_of_folders", "notes_of_ids", "notes_of_labels", "notes_of_sides"]


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


def notes_of_columns(
    indices: Sequence[str], digits: Sequence[str], renamed: Mapping[str, str]
) -> Iterator[str]:
    """Say which columns are pandas' row numbers, which text may be numbers, and what fields are called."""
    for column in indices:
        yield f"{column}: left out: a row number that pandas wrote; `to_parquet(index=False)` leaves it out"
    for column in digits:
        yield f"{column}: text of numbers, taken for names; store it as a number if it counts or measures"
    if renamed:
        names = ", ".join(f"'{column}' is field {field}" for column, field in renamed.items())
        yield f"names of fields are letters, digits and _.-, so {names}; requests use the field's"


def notes_of_folders(path: Path, files: Sequence[RowFile]) -> Iterator[str]:
    """Say what is in some files only, or in the names of folders alone, as in `device=ios/part-0.parquet`."""
    for column in dict.fromkeys(name for file in files for name in file.schema.names):
        without = [file.path.name for file in files if column not in file.schema.names]
        if without and not all(isinstance(file, LibsvmFile) for file in files):
            more = f" and {len(without) - 1} more" if len(without) > 1 else ""
            yield f"{column}: not in {without[0]}{more}, so no field; write it into all files"
    if path.is_dir():
        parts = [part for file in files for part in file.path.relative_to(path).parts[:-1]]
        columns = dict.fromkeys(part.partition("=")[0] for part in parts if "=" in part)
        for column in columns:
            yield f"{column}: in the names of folders alone, which are not read; write it into the files"


def _may_be_ids(column: Any) -> bool:
    """Whether a column names something that several rows are of."""
    return is_id_type(column.type) and not names_rows(column)
