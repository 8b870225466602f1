"""MovieLens 1M: ratings.dat, users.dat and movies.dat, latin-1, columns apart by two colons.

The tables have the columns of MovieLens-100k's; occupations come as the names that the archive's README gives
to their numbers, ages as the first year of their range.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv

from rankd_training.data.movielens import RawMovieLens, prepare
from rankd_training.errors import MalformedSource

__all__ = ["OCCUPATIONS", "read_movielens_1m"]

OCCUPATIONS = (
    *("other", "educator", "artist", "clerical", "student", "customer service", "healthcare", "executive"),
    *("farmer", "homemaker", "K-12 student", "lawyer", "programmer", "retired", "sales", "scientist"),
    *("self-employed", "engineer", "tradesman", "unemployed", "writer"),
)
_INT: pa.DataType = pa.int64()
_TEXT: pa.DataType = pa.string()


def read_movielens_1m(ratings: Path, users: Path, movies: Path) -> Mapping[str, pa.Table]:
    """Read the three files -> `examples`, `users` and `items`. Raises MalformedSource."""
    people = _read(users, {"user_id": _INT, "gender": _TEXT, "age": _INT, "code": _INT, "zip_code": _TEXT})
    films = _read(movies, {"movie_id": _INT, "title": _TEXT, "genres": _TEXT})
    try:
        occupation: Any = pa.array(OCCUPATIONS).take(people["code"].combine_chunks())
    except pa.ArrowIndexError as error:
        problem = f"an occupation is not one of 0 to {len(OCCUPATIONS) - 1}"
        raise MalformedSource(str(users), problem) from error
    title: Any = films["title"]
    year = pc.struct_field(pc.extract_regex(title, pattern=r"\((?P<year>\d{4})\)\s*$"), "year").cast(_INT)
    genres: Any = films["genres"]
    return prepare(
        RawMovieLens(
            ratings=_read(ratings, dict.fromkeys(("user_id", "movie_id", "rating", "timestamp"), _INT)),
            users=people.drop_columns("code").append_column("occupation", occupation),
            movies=pa.table(
                {
                    "movie_id": films["movie_id"],
                    "title": title,
                    "genres": pc.split_pattern(genres, "|"),
                    "year": year,
                }
            ),
        )
    )


def _read(path: Path, types: Mapping[str, pa.DataType]) -> pa.Table:
    try:
        text = path.read_bytes().decode("latin-1").replace("::", "\t").encode()
        return pv.read_csv(
            io.BytesIO(text),
            read_options=pv.ReadOptions(column_names=list(types)),
            parse_options=pv.ParseOptions(delimiter="\t", quote_char=False),
            convert_options=pv.ConvertOptions(column_types=dict(types), null_values=[]),
        )
    except (OSError, pa.ArrowException) as error:
        raise MalformedSource(str(path), f"not the published form, A::B::C a line: {error}") from error
