"""Examples -> a schema file to start from, with a comment a field; it trains as it is.

Where a user and an item column are named, every other column goes to the one it follows from (the same value
in all rows of one user, or of one item), else to the context. Without them the rows are one item view. What
may be a second label is no field: it would tell a model in training what nobody knows when it serves.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from rankd_training.data.column_kinds import is_number_text, is_time
from rankd_training.data.field_names import field_names, quoted
from rankd_training.data.field_proposal import Proposal, propose_field, unfit
from rankd_training.data.id_columns import is_id_name, is_id_type, with_whole_ids
from rankd_training.data.label_proposal import choose_labels, is_outcome_name, is_two_valued
from rankd_training.data.libsvm import LibsvmFile, entries_by_position
from rankd_training.data.row_files import RowFile, open_rows
from rankd_training.data.sampled_rows import sampled_rows
from rankd_training.data.schema_notes import (
    notes_of_columns,
    notes_of_folders,
    notes_of_ids,
    notes_of_labels,
    notes_of_sides,
)
from rankd_training.data.splits import SPLIT
from rankd_training.data.whose_columns import follows, holds_ids_of, names_rows, sides, whole
from rankd_training.errors import ExamplesError

__all__ = ["Roles", "SchemaProposal", "propose_schema"]

_EVENT_TIME = "event_time"
_PANDAS_INDEX = re.compile(r"__index_level_\d+__|Unnamed: \d+")
# From the surest to the least sure.
_USERS = """
    user_id userid uid user customer_id customerid member_id visitor_id viewer_id subscriber_id account_id
    customer visitor viewer
"""
_ITEMS = """
    item_id itemid iid item product_id productid sku asin goods_id ad_id adid creative_id offer_id listing_id
    movie_id film_id video_id song_id track_id book_id game_id article_id news_id post_id document_id doc_id
    content_id product article movie film video song
"""


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
    """Look at (a sample of) the training rows -> a schema file, with what was decided and left out.

    Raises:
        ExamplesError: the file cannot be read, a column named is not there, a label that was named is not of
            0 and 1, no label can be told, a column of ids is not of whole numbers or text, or a view has no
            field.
    """
    files = open_rows(path)
    table = sampled_rows(path, files)
    for column in (*roles.labels, *roles.ignore, *filter(None, (roles.user, roles.item))):
        if column not in table.column_names:
            near = difflib.get_close_matches(column, table.column_names, 1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            have = ", ".join(table.column_names)
            raise ExamplesError(path, f"no such column; {hint}the file has {have}", column=column)
    labels = choose_labels(path, table, roles.labels)
    taken = {*labels, *roles.ignore, *filter(None, (roles.user, roles.item))}
    user = roles.user or _named(table, _USERS, taken)
    item = roles.item or _named(table, _ITEMS, taken)
    table, from_floats = with_whole_ids(table, list(filter(None, (user, item))))
    _check_ids(path, table, user, item)
    named = _pandas_index(files) - {user, item}
    indices = [
        c for c in table.column_names if _PANDAS_INDEX.fullmatch(c) or (c in named and names_rows(table[c]))
    ]
    rest = [c for c in table.column_names if c not in {SPLIT, *labels, *roles.ignore, *indices}]
    if any(isinstance(file, LibsvmFile) for file in files):
        rest = entries_by_position(rest)
    doubtful = _perhaps_labels(table, rest, user, item)
    rest = [c for c in rest if c not in doubtful]
    called = field_names(rest)
    num_rows = sum(file.num_rows for file in files)
    lines = [
        f"# Proposed from {table.num_rows:,} training rows; {_line(path.name)} has {num_rows:,} rows.",
        "# Read it before you trust it: what is known only after the event must not be a field, and what",
        "# you know better than a guess belongs here.",
        "rankd_schema: 1",
        f"name: {quoted(name)}",
        "views:",
    ]
    keys = [c for c in rest if c not in {user, item} and names_rows(table[c])]
    # Each row has its own: a model that looks it up has seen none of those that it is asked for.
    text = [c for c in keys if not pa.types.is_integer(table[c].type)]
    own = [c for c in keys if is_id_name(c) or (c in text and unfit(c, whole(table[c])) is None)]
    if user is None or item is None:
        key = next(iter((*own, *keys)), None)
        views = _Views(path, table, called, None, _event_time(table, rest, ()))
        remark = "" if key else "No column tells the rows apart; `rankd features import` needs one."
        columns = [c for c in rest if c not in {key, *own}]
        lines += views.view("row", "item", key or "id", columns, remark)
    else:
        of = sides(table, [c for c in rest if c not in own], user, item)
        views = _Views(path, table, called, item, _event_time(table, rest, (user, item)))
        lines += views.view("user", "user", user, [user, *of["user"]])
        lines += views.view("item", "item", item, [item, *of["item"]])
        lines += views.view("context", "context", None, of["context"]) if of["context"] else []
    lines += [f"# {_line(c)}: another value in each row, so it names the row: no field." for c in own]
    lines += _left_out(table, doubtful)
    lines.append("tasks:")
    for label, task in field_names(list(labels)).items():
        source = f", label: {quoted(label)}" if task != label else ""
        lines += [f"  # {_line(label)}: {labels[label]}", f"  - {{name: {quoted(task)}{source}}}"]
    kept = [c for c in rest if is_two_valued(table[c])]
    said = notes_of_labels(labels, doubtful, kept, sides=user is not None and item is not None)
    kept_ids = [c for c in from_floats if c in {*rest, user, item}]
    digits = [
        c
        for c in rest
        if c not in {user, item, *own} and not is_id_name(c) and _is_name_of_digits(c, whole(table[c]))
    ]
    notes = (
        *notes_of_sides(table, rest, user, item),
        *said,
        *notes_of_ids(own, kept_ids),
        *notes_of_columns(indices, digits, {c: called[c] for c in rest if called[c] != c}),
        *views.left_out,
        *notes_of_folders(path, files),
    )
    return SchemaProposal("\n".join(lines) + "\n", notes)


def _is_name_of_digits(name: str, column: Any) -> bool:
    """Whether text of numbers became a field, as names do."""
    return unfit(name, column) is None and is_number_text(column)


def _pandas_index(files: Sequence[RowFile]) -> set[str]:
    """Columns that were a data frame's index, as pandas notes in the file."""
    noted = (file.schema.pandas_metadata or {} for file in files)
    return {name for note in noted for name in note.get("index_columns", ()) if isinstance(name, str)}


def _check_ids(path: Path, table: pa.Table, user: str | None, item: str | None) -> None:
    if user is not None and user == item:
        raise ExamplesError(path, "is named as the user's id and as the item's", column=user)
    for column in filter(None, (user, item)):
        kind = table[column].type
        if not is_id_type(kind):
            problem = f"an id is a whole number or text, this column is of {kind}"
            if table[column].null_count == table.num_rows:
                problem = "an id is a whole number or text, this column is null in every row looked at"
            elif pa.types.is_floating(kind):
                problem += " and not all of it is whole, or small enough to be exact"
            problem += "; cast it to int64 (nulls may stay)"
            raise ExamplesError(path, f"{problem}, or name another with --user and --item", column=column)


def _perhaps_labels(table: pa.Table, columns: Sequence[str], user: str | None, item: str | None) -> list[str]:
    """Return columns of 0 and 1 that are neither the user's nor the item's.

    Rows that are nobody's are described by such columns too; there, only a name gives an outcome away.
    """
    binary = [c for c in columns if c not in {user, item} and is_two_valued(table[c])]
    if user is None or item is None:
        return [c for c in binary if is_outcome_name(c)]
    return [c for c in binary if not follows(table, c, item) and not follows(table, c, user)]


def _left_out(table: pa.Table, columns: Sequence[str]) -> Iterator[str]:
    if columns:
        yield "# Left out: 0 or 1 in each row, so perhaps another label: no field."
        yield "# If it is one, use --label; if it is known before the event, put its line into a view."
    for column in columns:
        found = propose_field(column, whole(table[column]), called=field_names([column])[column])
        yield from (f"#      - {line}" for line in found.fields)


def _event_time(table: pa.Table, columns: Sequence[str], entities: Sequence[str]) -> str | None:
    """Return the first column that says when each event was; a time of a user or an item is none."""
    times = (c for c in columns if is_time(c, whole(table[c])))
    return next((c for c in times if not any(follows(table, c, entity) for entity in entities)), None)


@dataclass(frozen=True, slots=True)
class _Views:
    """Writes views: of which rows, how fields are called, whose ids the items' are, when events were.

    `left_out` fills with what became of columns that gave no field.
    """

    path: Path
    table: pa.Table
    called: Mapping[str, str]
    item: str | None
    time: str | None
    left_out: list[str] = field(default_factory=list)

    def view(
        self, name: str, entity: str, key: str | None, columns: Sequence[str], remark: str = ""
    ) -> Iterator[str]:
        yield f"  - name: {name}"
        yield f"    entity: {entity}"
        if remark:
            yield f"    # {remark}"
        if key is not None:
            yield f"    key: {quoted(key)}"
            yield "    # When a stored row was true; `rankd features import` needs this column in its file."
            yield f"    event_time: {quoted(self.time or _EVENT_TIME)}"
        yield "    fields:"
        proposals = {column: self._proposal(column, key) for column in columns}
        if not any(found.fields for found in proposals.values()):
            why = "; ".join(f"{_line(column)}: {found.reason}" for column, found in proposals.items())
            raise ExamplesError(self.path, f"nothing can be a field of view '{name}' ({why or 'no column'})")
        for column, found in proposals.items():
            if not found.fields:
                self.left_out.append(f"{_line(column)}: left out: {found.reason}")
            missing = self.table[column].null_count / self.table.num_rows
            nulls = f", null in {missing:.1%}" if missing else ""
            yield f"      # {_line(column)}: {found.reason}{nulls}"
            yield from (f"      - {line}" for line in found.fields)

    def _proposal(self, column: str, key: str | None) -> Proposal:
        values, item = whole(self.table[column]), self.item
        shares = self.called[item] if item is not None and holds_ids_of(values, self.table[item]) else None
        return propose_field(
            column, values, called=self.called[column], shares=shares, names_things=column == key
        )


def _named(table: pa.Table, names: str, taken: Collection[str]) -> str | None:
    called = {column.lower(): column for column in reversed(table.column_names) if column not in taken}
    return next((called[name] for name in names.split() if name in called), None)


def _line(text: str) -> str:
    """A name for a comment, which ends with its line."""
    return " ".join(text.split())
