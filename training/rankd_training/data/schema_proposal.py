"""Examples -> a schema file to start from, with a comment a field; it trains as it is.

Where a user and an item column are named, every other column goes to the one it follows from (the same value
in all rows of one user, or of one item), else to the context. Without them the rows are one item view.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rankd_training.data.field_proposal import is_time, propose_field
from rankd_training.data.row_files import BATCH_ROWS, RowFile, open_rows
from rankd_training.errors import ExamplesError
from rankd_training.example_columns import SPLIT

__all__ = ["Roles", "propose_schema"]

SAMPLE_ROWS = 500_000
_LABELS = frozenset(
    {"click", "clicked", "is_click", "target", "y", "conversion", "converted", "buy", "bought"}
)
_USERS, _ITEMS = ("user_id", "userid", "uid"), ("item_id", "itemid", "iid")


@dataclass(frozen=True, slots=True)
class Roles:
    """What a person says of the columns; what is left out is guessed from their names.

    Attributes:
        labels: what is predicted, a task each; 0 or 1.
        user: the user's id.
        item: the item's id.
        ignore: no features, such as what is known only afterwards.
    """

    labels: tuple[str, ...] = ()
    user: str | None = None
    item: str | None = None
    ignore: tuple[str, ...] = ()


def propose_schema(path: Path, roles: Roles, *, name: str) -> str:
    """Look at (a sample of) the rows -> the text of a schema file.

    Raises:
        ExamplesError: the file cannot be read, a column named is not there, or no label can be told.
    """
    files = open_rows(path)
    table = _sample(files)
    if not table.num_rows:
        raise ExamplesError(path, "has no rows")
    for column in (*roles.labels, *roles.ignore, *filter(None, (roles.user, roles.item))):
        if column not in table.column_names:
            near = difflib.get_close_matches(column, table.column_names, 1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            have = ", ".join(table.column_names)
            raise ExamplesError(path, f"no such column; {hint}the file has {have}", column=column)
    labels = roles.labels or _labels(path, table)
    user = roles.user or _named(table, _USERS)
    item = roles.item or _named(table, _ITEMS)
    rest = [c for c in table.column_names if c not in {SPLIT, *labels, *roles.ignore}]
    num_rows = sum(file.num_rows for file in files)
    looked = f"{table.num_rows:,} of {num_rows:,}" if table.num_rows < num_rows else f"all {num_rows:,}"
    lines = [
        f"# Proposed from {looked} rows of {path.name}. Read it before you trust it: what is known",
        "# only after the event must not be a field, and what you know better than a guess belongs here.",
        "rankd_schema: 1",
        f"name: {name}",
        "views:",
    ]
    if user is None or item is None:
        key = next((c for c in rest if _is_key(table[c])), None)
        lines += _view("row", "item", key or "id", table, [c for c in rest if c != key])
        if key is None:
            lines.insert(-1, "    # No column tells the rows apart; `rankd features import` needs one.")
    else:
        sides = _sides(table, rest, user, item)
        lines += _view("user", "user", user, table, [user, *sides["user"]], item)
        lines += _view("item", "item", item, table, [item, *sides["item"]], item)
        lines += _view("context", "context", None, table, sides["context"], item) if sides["context"] else []
    lines += ["tasks:", *(f"  - {{name: {label}}}" for label in labels)]
    return "\n".join(lines) + "\n"


def _view(
    name: str, entity: str, key: str | None, table: pa.Table, columns: Sequence[str], item: str | None = None
) -> Iterator[str]:
    yield f"  - name: {name}"
    yield f"    entity: {entity}"
    if key is not None:
        yield f"    key: {key}"
    yield "    fields:"
    for column in columns:
        values = _whole(table[column])
        shares = item if item is not None and _holds_ids_of(values, table[item]) else None
        found = propose_field(column, values, shares=shares)
        nulls = (
            f", null in {table[column].null_count / table.num_rows:.1%}" if table[column].null_count else ""
        )
        yield f"      # {column}: {found.reason}{nulls}"
        yield from (f"      - {field}" for field in found.fields)


def _sides(table: pa.Table, columns: Sequence[str], user: str, item: str) -> dict[str, list[str]]:
    sides: dict[str, list[str]] = {"user": [], "item": [], "context": []}
    for column in columns:
        if column in {user, item}:
            continue
        timely = is_time(column, _whole(table[column]))
        if not timely and _follows(table, column, item):
            sides["item"].append(column)
        elif not timely and (_follows(table, column, user) or pa.types.is_nested(table[column].type)):
            # A list that changes from row to row is what a user did before: the user's, as of the event.
            sides["user"].append(column)
        else:
            sides["context"].append(column)
    return sides


def _follows(table: pa.Table, column: str, entity: str) -> bool:
    """Whether rows of one entity all have one value."""
    values: Any = _whole(table[column])
    if pa.types.is_list(values.type):
        values = pc.binary_join(values.cast(pa.list_(pa.string())), "\x1f")
    elif pa.types.is_nested(values.type):
        return False
    pairs = pa.table({"entity": _whole(table[entity]), "value": values})
    num_pairs = pairs.group_by(["entity", "value"]).aggregate([]).num_rows
    return num_pairs == len(_whole(table[entity]).unique()) < table.num_rows


def _holds_ids_of(values: Any, item: Any) -> bool:
    if not pa.types.is_list(values.type) or values.type.value_type != item.type:
        return False
    ids = values.flatten().unique()
    return len(ids) > 0 and bool(pc.all(pc.is_in(ids, value_set=_whole(item).unique())).as_py())


def _labels(path: Path, table: pa.Table) -> tuple[str, ...]:
    binary = [c for c in table.column_names if _is_binary(table[c])]
    named = tuple(c for c in binary if c.lower() in _LABELS or c.lower().startswith("label"))
    if named:
        return named
    candidates = f"; columns of 0 and 1 are {', '.join(binary)}" if binary else ", and none is of 0 and 1"
    raise ExamplesError(path, f"which column is the label? None is named so{candidates}; say it with --label")


def _is_binary(column: Any) -> bool:
    if pa.types.is_boolean(column.type):
        return True
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return False
    return set(_whole(column).unique().to_pylist()) <= {0, 1}


def _is_key(column: Any) -> bool:
    """Whether a column names each row: whole numbers or text, none twice."""
    plain = pa.types.is_integer(column.type) or pa.types.is_string(column.type)
    return plain and not column.null_count and len(_whole(column).unique()) == len(column)


def _named(table: pa.Table, names: Sequence[str]) -> str | None:
    return next((c for c in table.column_names if c.lower() in names), None)


def _sample(files: Sequence[RowFile]) -> pa.Table:
    """Pieces spread evenly over all files, SAMPLE_ROWS at most."""
    num_pieces = sum(math.ceil(file.num_rows / BATCH_ROWS) for file in files)
    stride = max(1, math.ceil(num_pieces * BATCH_ROWS / SAMPLE_ROWS))
    names = files[0].schema.names
    pieces = (piece for file in files for piece in file.batches([n for n in names if n in file.schema.names]))
    taken = [piece for number, piece in enumerate(pieces) if number % stride == 0]
    table = pa.Table.from_batches(taken) if taken else files[0].schema.empty_table()
    plain = [
        pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type)
        for f in table.schema
    ]
    return table.cast(pa.schema(plain))


def _whole(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
