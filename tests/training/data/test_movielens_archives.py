from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from rankd_training.data.movielens_archives import read_grouplens, read_wheel
from rankd_training.errors import MalformedSource
from tests.training.data.tiny_movielens import RATINGS, USERS, write_grouplens, write_wheel


def test_both_published_forms_give_the_same_raw_form(tmp_path: Path) -> None:
    from_wheel = read_wheel(write_wheel(tmp_path / "films.whl"))
    from_archive = read_grouplens(write_grouplens(tmp_path / "ml-100k.zip"))
    assert from_wheel.ratings.equals(from_archive.ratings)
    assert from_wheel.users.equals(from_archive.users)
    assert from_wheel.movies.equals(from_archive.movies)


def test_grouplens_lines_are_read_as_they_are_meant(tmp_path: Path) -> None:
    raw = read_grouplens(write_grouplens(tmp_path / "ml-100k.zip"))
    assert [tuple(row.values()) for row in raw.ratings.to_pylist()] == RATINGS
    assert [tuple(row.values()) for row in raw.users.to_pylist()] == USERS, "postal codes keep their zeros"
    assert raw.movies["title"].to_pylist()[:2] == ['The "Quoted" Café (1995)', "Über den Wolken (1971)"]
    assert raw.movies["year"].to_pylist() == [1995, 1971, None, 1998, 1998]


def test_genres_are_named_in_one_order_and_unknown_is_none_of_them(tmp_path: Path) -> None:
    raw = read_wheel(write_wheel(tmp_path / "films.whl"))
    assert raw.movies["genres"].to_pylist() == [
        ["Comedy", "Drama"],
        ["War"],
        [],
        ["Children's", "Film-Noir"],
        ["Action", "Sci-Fi", "Western"],
    ]


def test_an_archive_of_another_form_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "page.zip").write_bytes(b"<html>moved</html>")
    for read in (read_wheel, read_grouplens):
        with pytest.raises(MalformedSource, match=r"page\.zip: .*not a zip file"):
            read(tmp_path / "page.zip")
    with pytest.raises(MalformedSource, match=r"ml-100k/u\.genre"):
        read_grouplens(write_wheel(tmp_path / "films.whl"))
    with pytest.raises(MalformedSource, match="MovieLens100k_data"):
        read_wheel(write_grouplens(tmp_path / "ml-100k.zip"))


def test_a_line_with_a_missing_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MalformedSource, match="Expected 5 columns, got 4"):
        read_grouplens(write_grouplens(tmp_path / "ml-100k.zip", u_user=b"1|24|M|technician\n"))


def test_a_text_where_a_number_belongs_is_refused(tmp_path: Path) -> None:
    lines = b"1\t1\tfive\t90\n"
    with pytest.raises(MalformedSource, match="five"):
        read_grouplens(write_grouplens(tmp_path / "ml-100k.zip", u_data=lines))


def test_a_wheel_without_a_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MalformedSource, match="age"):
        read_wheel(write_wheel(tmp_path / "films.whl", users=pa.table({"user_id": [1]})))
