"""Film ratings in the MovieLens manner: one raw form, and the tables that training, import and demo read.

Promises the columns of `EXAMPLES`, `USERS` and `ITEMS` below, whatever the source. A row of `examples` holds
only what was known before its event: `recent_liked` never sees an event of the same second or later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rankd_training.data.history import Events, recent_before
from rankd_training.data.splits import temporal_split
from rankd_training.errors import MalformedSource

GENRES = (
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
HISTORY_LENGTH = 20
LIKED_FROM = 4
LOVED_FROM = 5

_INT: pa.DataType = pa.int64()
_FLAG: pa.DataType = pa.int8()
_TEXT: pa.DataType = pa.string()
_ID_LIST: pa.DataType = pa.list_(pa.int64())
_NAME_LIST: pa.DataType = pa.list_(pa.string())

# One row per rating, ordered by (timestamp, user_id, movie_id).
EXAMPLES = pa.schema(
    [
        ("user_id", _INT),
        ("age", _INT),  # years
        ("gender", _TEXT),  # "F" or "M"
        ("occupation", _TEXT),
        # First character of the postal code: ten regions of the United States and a letter for Canada's.
        # Two characters would leave nine of a thousand users to a value, too few to learn from.
        ("zip_prefix", _TEXT),
        ("recent_liked", _ID_LIST),  # films liked strictly before the event, newest first, at most 20
        ("movie_id", _INT),
        ("genres", _NAME_LIST),  # names of GENRES in their order; empty where the source says "unknown"
        ("year", _INT),  # of release; null where the source has none
        ("timestamp", _INT),  # seconds since 1970, UTC
        ("rating", _INT),  # 1 to 5
        ("liked", _FLAG),  # 1 where rating >= 4
        ("loved", _FLAG),  # 1 where rating = 5
        ("split", _TEXT),  # "train", "valid" or "test", global in time, 80/10/10
    ]
)
# One row per user, ordered by user_id: what is known after all events.
USERS = pa.schema(
    [
        ("user_id", _INT),
        ("age", _INT),
        ("gender", _TEXT),
        ("occupation", _TEXT),
        ("zip_prefix", _TEXT),
        ("recent_liked", _ID_LIST),
        ("event_time", _INT),  # seconds; the user's last event, the data's end for a user with none
    ]
)
# One row per film, ordered by movie_id.
ITEMS = pa.schema(
    [
        ("movie_id", _INT),
        ("title", _TEXT),
        ("genres", _NAME_LIST),
        ("year", _INT),
        ("event_time", _INT),  # seconds; the film's last event, the data's end for a film with none
    ]
)


@dataclass(frozen=True, slots=True)
class Form:
    """The columns that one edition's tables have, and from which rating on a film is liked and loved."""

    examples: pa.Schema
    users: pa.Schema
    items: pa.Schema
    liked_from: float
    loved_from: float


ML_100K = Form(EXAMPLES, USERS, ITEMS, LIKED_FROM, LOVED_FROM)

if TYPE_CHECKING:  # the classes take no parameters at run time
    Column = pa.Array[Any] | pa.ChunkedArray[Any]


@dataclass(frozen=True, slots=True)
class RawMovieLens:
    """The source-independent form; rows in any order.

    `ratings`: user_id, movie_id, timestamp (int64), rating (a number).
    `users`: user_id, and where the edition tells them age (int64), gender, occupation, zip_code (string).
    `movies`: movie_id (int64), title (string), genres (list of string), year (int64, nullable).
    """

    ratings: pa.Table
    users: pa.Table
    movies: pa.Table


def prepare(raw: RawMovieLens, form: Form = ML_100K) -> dict[str, pa.Table]:
    """Turn the raw form into the tables `examples`, `users` and `items`, with the columns of `form`.

    Raises:
        MalformedSource: a rating names a user or a film that the raw form does not describe.
    """
    ratings = raw.ratings.sort_by(
        [("timestamp", "ascending"), ("user_id", "ascending"), ("movie_id", "ascending")]
    )
    users = raw.users.sort_by("user_id")
    movies = raw.movies.sort_by("movie_id")
    user_id_N, movie_id_N, time_N = (_int64(ratings, name) for name in ("user_id", "movie_id", "timestamp"))
    rating_N = ratings["rating"].to_numpy()
    liked_N = rating_N >= form.liked_from
    liked_events = Events(user_id_N[liked_N], time_N[liked_N], movie_id_N[liked_N])

    if "zip_prefix" in form.users.names:
        users = users.append_column("zip_prefix", pc.utf8_slice_codeunits(users["zip_code"], 0, 1))
    user_row_N = _row_of(user_id_N, users, "user_id")
    movie_row_N = _row_of(movie_id_N, movies, "movie_id")
    columns: dict[str, Column] = {
        **_columns(users.take(user_row_N)),
        **_columns(movies.take(movie_row_N)),
        **_columns(ratings),
        "recent_liked": recent_before(liked_events, user_id_N, time_N, length=HISTORY_LENGTH),
        "liked": pa.array(liked_N.astype(np.int8)),
        "loved": pa.array((rating_N >= form.loved_from).astype(np.int8)),
        "split": temporal_split(time_N, tie_breakers=(user_id_N, movie_id_N)),
    }
    after_all_U = np.full(users.num_rows, time_N.max() + 1)
    user_columns: dict[str, Column] = {
        **_columns(users),
        "recent_liked": recent_before(
            liked_events, _int64(users, "user_id"), after_all_U, length=HISTORY_LENGTH
        ),
        "event_time": pa.array(_last_time(user_row_N, time_N, users.num_rows)),
    }
    item_columns: dict[str, Column] = {
        **_columns(movies),
        "event_time": pa.array(_last_time(movie_row_N, time_N, movies.num_rows)),
    }
    return {
        "examples": _table(columns, form.examples),
        "users": _table(user_columns, form.users),
        "items": _table(item_columns, form.items),
    }


def _int64(table: pa.Table, column: str) -> npt.NDArray[np.int64]:
    return table[column].to_numpy().astype(np.int64, copy=False)


def _columns(table: pa.Table) -> dict[str, Column]:
    return dict(zip(table.column_names, table.columns, strict=True))


def _table(columns: dict[str, Column], schema: pa.Schema) -> pa.Table:
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _row_of(id_N: npt.NDArray[np.int64], table: pa.Table, column: str) -> npt.NDArray[np.int64]:
    """The row of `table`, which is sorted by `column`, that describes each id."""
    known = _int64(table, column)
    row_N = np.minimum(np.searchsorted(known, id_N), len(known) - 1)
    unknown_N = known[row_N] != id_N
    if unknown_N.any():
        raise MalformedSource(
            "ratings",
            f"{column} {id_N[unknown_N][0]} has a rating and no description "
            f"({unknown_N.sum()} such ratings of {len(id_N)}); expected every id to be described",
        )
    return row_N


def _last_time(
    row_N: npt.NDArray[np.int64], time_N: npt.NDArray[np.int64], num_rows: int
) -> npt.NDArray[np.int64]:
    last = np.full(num_rows, np.iinfo(np.int64).min)
    np.maximum.at(last, row_N, time_N)
    return np.where(last == np.iinfo(np.int64).min, time_N.max(), last)
