"""MovieLens "latest small" (2018): 100,836 ratings in half stars, films with genres, no word of the users.

Takes GroupLens' own ratings.csv and movies.csv, or the same tables as Parquet. Users are known by what they
liked before each event alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
import pyarrow.parquet as pq

from rankd_training.data.movielens import Form, RawMovieLens, prepare

__all__ = ["EXAMPLES", "FORM", "ITEMS", "USERS", "read_latest"]

_NO_GENRES = "(no genres listed)"
_CSV_NAMES = {"userId": "user_id", "movieId": "movie_id"}
_INT: pa.DataType = pa.int64()
_FLAG: pa.DataType = pa.int8()
_TEXT: pa.DataType = pa.string()
_RATING: pa.DataType = pa.float32()
_ID_LIST: pa.DataType = pa.list_(pa.int64())
_NAME_LIST: pa.DataType = pa.list_(pa.string())

# As in `movielens.EXAMPLES`, without what is not known of these users.
EXAMPLES = pa.schema(
    [
        ("user_id", _INT),
        ("recent_liked", _ID_LIST),
        ("movie_id", _INT),
        ("genres", _NAME_LIST),
        ("year", _INT),  # of release, from the title; null where the title ends without one
        ("timestamp", _INT),
        ("rating", _RATING),  # 0.5 to 5 in halves
        ("liked", _FLAG),  # 1 where rating >= 4
        ("loved", _FLAG),  # 1 where rating >= 4.5
        ("split", _TEXT),
    ]
)
USERS = pa.schema([("user_id", _INT), ("recent_liked", _ID_LIST), ("event_time", _INT)])
ITEMS = pa.schema(
    [("movie_id", _INT), ("title", _TEXT), ("genres", _NAME_LIST), ("year", _INT), ("event_time", _INT)]
)
FORM = Form(EXAMPLES, USERS, ITEMS, liked_from=4.0, loved_from=4.5)


def read_latest(folder: Path) -> Mapping[str, pa.Table]:
    """Read `ratings` and `movies` of a folder -> the prepared tables."""
    ratings, movies = _read(folder, "ratings"), _read(folder, "movies")
    numbers = pa.schema([("user_id", _INT), ("movie_id", _INT), ("rating", _RATING), ("timestamp", _INT)])
    ratings = ratings.select(numbers.names).cast(numbers)
    title: Any = movies["title"].cast(_TEXT)
    year = pc.struct_field(pc.extract_regex(title, pattern=r"\((?P<year>\d{4})\)\s*$"), "year").cast(_INT)
    described = pa.table(
        {
            "movie_id": movies["movie_id"].cast(_INT),
            "title": title,
            "genres": _genres(movies["genres"].cast(_TEXT)),
            "year": year,
        }
    )
    users = pa.table({"user_id": ratings["user_id"].unique()})
    return prepare(RawMovieLens(ratings, users, described), FORM)


def _read(folder: Path, name: str) -> pa.Table:
    if (folder / f"{name}.parquet").is_file():
        return pq.read_table(folder / f"{name}.parquet")
    table = pv.read_csv(folder / f"{name}.csv")
    return table.rename_columns([_CSV_NAMES.get(column, column) for column in table.column_names])


def _genres(joined: Any) -> Any:
    """`Action|Crime` as a list of names; a film without genres has the empty list."""
    none = pa.scalar([], type=_NAME_LIST)
    return pc.if_else(pc.equal(joined, pa.scalar(_NO_GENRES)), none, pc.split_pattern(joined, "|"))
