"""Examples -> a schema file to start from, with a comment a field; it trains as it is.

Where a user and an item column are named, every other column goes to the one it follows from (the same value
in all rows of one user, or of one item), else to the context. Without them the rows are one item view. What
may be a second label is no field: it would tell a model in training what nobody knows when it serves.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rankd_training.data.field_proposal import is_id_name, is_time, propose_field
from rankd_training.data.label_proposal import choose_labels, is_outcome_name, is_two_valued
from rankd_training.data.libsvm import LISTS, LibsvmFile, entries_by_position
from rankd_training.data.row_files import BATCH_ROWS, RowFile, open_rows
from rankd_training.data.splits import SPLIT
from rankd_training.errors import ExamplesError

__all__ = ["Roles", "SchemaProposal", "propose_schema"]

SAMPLE_ROWS = 500_000
_EVENT_TIME = "event_time"
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
# From the surest to the least sure.
_USERS = (
    *(
        "user_id",
        "userid",
        "uid",
        "user",
        "customer_id",
        "customerid",
        "member_id",
        "visitor_id",
        "viewer_id",
    ),
    *("subscriber_id", "account_id"),
)
_ITEMS = (
    *(
        "item_id",
        "itemid",
        "iid",
        "item",
        "product_id",
        "productid",
        "sku",
        "asin",
        "goods_id",
        "ad_id",
        "adid",
    ),
    *("creative_id", "offer_id", "listing_id", "movie_id", "film_id", "video_id", "song_id", "track_id"),
    *("book_id", "game_id", "article_id", "news_id", "post_id", "document_id", "doc_id", "content_id"),
)


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


@dataclass(frozen=True, slots=True)
class SchemaProposal:
    """The text of a schema file, and what a person should hear of it: a line a label, and a line a doubt."""

    text: str
    notes: tuple[str, ...]


def propose_schema(path: Path, roles: Roles, *, name: str) -> SchemaProposal:
    """Look at (a sample of) the rows -> a schema file, with what was decided and what was left out.

    Raises:
        ExamplesError: the file cannot be read, a column named is not there, a label that was named is not of
            0 and 1, or no label can be told.
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
    labels = choose_labels(path, table, roles.labels)
    user = roles.user or _named(table, _USERS)
    item = roles.item or _named(table, _ITEMS)
    rest = [c for c in table.column_names if c not in {SPLIT, *labels, *roles.ignore}]
    if any(isinstance(file, LibsvmFile) for file in files):
        rest = entries_by_position(rest)
    doubtful = _perhaps_labels(table, rest, user, item)
    rest = [c for c in rest if c not in doubtful]
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
        time = _event_time(table, rest, ())
        remark = "" if key else "No column tells the rows apart; `rankd features import` needs one."
        columns = [c for c in rest if c != key]
        lines += _view("row", "item", key or "id", table, columns, time=time, remark=remark)
    else:
        sides, time = _sides(table, rest, user, item), _event_time(table, rest, (user, item))
        lines += _view("user", "user", user, table, [user, *sides["user"]], item, time)
        lines += _view("item", "item", item, table, [item, *sides["item"]], item, time)
        lines += _view("context", "context", None, table, sides["context"], item) if sides["context"] else []
    lines += _left_out(table, doubtful)
    lines.append("tasks:")
    for label, reason in labels.items():
        lines += [f"  # {label}: {reason}", f"  - {{name: {label}}}"]
    kept = [c for c in rest if is_two_valued(table[c])]
    notes = _notes(labels, doubtful, kept, sides=user is not None and item is not None)
    return SchemaProposal("\n".join(lines) + "\n", (*_note_of_sides(table, rest, user, item), *notes))


def _perhaps_labels(table: pa.Table, columns: Sequence[str], user: str | None, item: str | None) -> list[str]:
    """Return columns of 0 and 1 that are neither the user's nor the item's.

    Rows that are nobody's are described by such columns too; there, only a name gives an outcome away.
    """
    binary = [c for c in columns if c not in {user, item} and is_two_valued(table[c])]
    if user is None or item is None:
        return [c for c in binary if is_outcome_name(c)]
    return [c for c in binary if not _follows(table, c, item) and not _follows(table, c, user)]


def _left_out(table: pa.Table, columns: Sequence[str]) -> Iterator[str]:
    if columns:
        yield "# Left out: 0 or 1 in each row, so perhaps another label: no field."
        yield "# If it is one, use --label; if it is known before the event, put its line into a view."
    for column in columns:
        yield from (f"#      - {field}" for field in propose_field(column, _whole(table[column])).fields)


def _notes(
    labels: dict[str, str], left_out: Sequence[str], kept: Sequence[str], *, sides: bool
) -> Iterator[str]:
    yield from (f"label {label}: {reason}" for label, reason in labels.items())
    for column in left_out:
        yield f"{column}: may be a label: give --label {column}, or --ignore {column}; left out of the fields"
    asked = [c for c in kept if is_outcome_name(c)] if sides else kept
    if asked:
        yield f"{', '.join(asked)}: 0 or 1 too, and fields; what is known only after the event needs --ignore"


def _note_of_sides(
    table: pa.Table, columns: Sequence[str], user: str | None, item: str | None
) -> Iterator[str]:
    """Say whose the rows are taken to be, and what a person might have meant."""
    if user is not None and item is not None:
        yield f"rows are of users ({user}) and items ({item}); else say --user and --item"
        return
    ids = [c for c in columns if c not in {user, item} and is_id_name(c) and _repeats(table[c])]
    perhaps = f", perhaps {' or '.join(ids)}" if ids else ""
    if user is not None:
        yield f"{user} is a user's id, and no column is called as an item's: say --item COLUMN{perhaps}"
    elif item is not None:
        yield f"{item} is an item's id, and no column is called as a user's: say --user COLUMN{perhaps}"
    elif ids:
        yield f"no column is called as a user's id or an item's; where one is, say --user and --item{perhaps}"


def _event_time(table: pa.Table, columns: Sequence[str], entities: Sequence[str]) -> str | None:
    """Return the first column that says when each event was; a time of a user or an item is none."""
    times = (c for c in columns if is_time(c, _whole(table[c])))
    return next((c for c in times if not any(_follows(table, c, entity) for entity in entities)), None)


def _view(
    name: str,
    entity: str,
    key: str | None,
    table: pa.Table,
    columns: Sequence[str],
    item: str | None = None,
    time: str | None = None,
    remark: str = "",
) -> Iterator[str]:
    yield f"  - name: {name}"
    yield f"    entity: {entity}"
    if remark:
        yield f"    # {remark}"
    if key is not None:
        yield f"    key: {_scalar(key)}"
        yield "    # When a stored row was true; `rankd features import` needs this column in its file."
        yield f"    event_time: {_scalar(time or _EVENT_TIME)}"
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
        if _follows(table, column, item):
            sides["item"].append(column)
        elif _follows(table, column, user) or pa.types.is_nested(table[column].type):
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


def _is_key(column: Any) -> bool:
    """Whether a column names each row: whole numbers or text, none twice."""
    plain = pa.types.is_integer(column.type) or pa.types.is_string(column.type)
    return plain and not column.null_count and len(_whole(column).unique()) == len(column)


def _repeats(column: Any) -> bool:
    """Whether a column names something that several rows are of."""
    return not pa.types.is_nested(column.type) and not _is_key(column)


def _named(table: pa.Table, names: Sequence[str]) -> str | None:
    called = {column.lower(): column for column in reversed(table.column_names)}
    return next((called[name] for name in names if name in called), None)


def _scalar(text: str) -> str:
    """A name as YAML reads it back; JSON is YAML, and quotes what needs it."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _sample(files: Sequence[RowFile]) -> pa.Table:
    """Pieces spread evenly over all files, SAMPLE_ROWS at most."""
    num_pieces = sum(math.ceil(file.num_rows / BATCH_ROWS) for file in files)
    stride = max(1, math.ceil(num_pieces * BATCH_ROWS / SAMPLE_ROWS))
    names = list(files[0].schema.names)
    if any(isinstance(file, LibsvmFile) and not file.even for file in files):
        names = [n for n in names if n in LISTS]
    pieces = (piece for file in files for piece in file.batches([n for n in names if n in file.schema.names]))
    taken = [piece for number, piece in enumerate(pieces) if number % stride == 0]
    table = pa.Table.from_batches(taken) if taken else files[0].schema.empty_table().select(names)
    plain = [
        pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type)
        for f in table.schema
    ]
    return table.cast(pa.schema(plain))


def _whole(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
