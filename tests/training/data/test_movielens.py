from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from rankd_training.data.movielens import EXAMPLES, ITEMS, USERS, RawMovieLens, prepare
from rankd_training.data.movielens_archives import read_wheel
from rankd_training.errors import MalformedSource
from tests.training.data.tiny_movielens import write_wheel


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> RawMovieLens:
    return read_wheel(write_wheel(tmp_path_factory.mktemp("wheel") / "films.whl"))


@pytest.fixture(scope="module")
def tables(raw: RawMovieLens) -> dict[str, pa.Table]:
    return prepare(raw)


def rows(table: pa.Table, *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in table.select(list(columns)).to_pylist()]


def test_tables_have_the_documented_columns(tables: dict[str, pa.Table]) -> None:
    assert tables["examples"].schema.equals(EXAMPLES)
    assert tables["users"].schema.equals(USERS)
    assert tables["items"].schema.equals(ITEMS)


def test_examples_are_ordered_by_time_then_user_then_film(tables: dict[str, pa.Table]) -> None:
    assert rows(tables["examples"], "timestamp", "user_id", "movie_id") == [
        (90, 1, 1),
        (100, 1, 2),
        (100, 1, 3),
        (100, 2, 1),
        (101, 1, 4),
        (102, 2, 2),
        (103, 1, 5),
    ]


def test_an_example_sees_only_what_was_liked_before_it(tables: dict[str, pa.Table]) -> None:
    assert tables["examples"]["recent_liked"].to_pylist() == [[], [1], [1], [], [3, 2, 1], [1], [3, 2, 1]]


def test_labels_follow_the_rating(tables: dict[str, pa.Table]) -> None:
    for rating, liked, loved in rows(tables["examples"], "rating", "liked", "loved"):
        assert (liked, loved) == (int(rating >= 4), int(rating == 5))


def test_each_example_carries_its_users_and_films_columns(tables: dict[str, pa.Table]) -> None:
    assert rows(tables["examples"], "age", "gender", "occupation", "zip_prefix", "genres", "year")[3:6] == [
        (53, "F", "other", "V", ["Comedy", "Drama"], 1995),
        (24, "M", "technician", "0", ["Children's", "Film-Noir"], 1998),
        (53, "F", "other", "V", ["War"], 1971),
    ]


def test_users_stand_as_after_all_events(tables: dict[str, pa.Table]) -> None:
    assert rows(tables["users"], "user_id", "recent_liked", "event_time") == [
        (1, [5, 3, 2, 1], 103),
        (2, [1], 102),
        (3, [], 103),
    ]


def test_films_stand_as_after_their_last_event(tables: dict[str, pa.Table]) -> None:
    assert rows(tables["items"], "movie_id", "event_time") == [
        (1, 100),
        (2, 102),
        (3, 100),
        (4, 101),
        (5, 103),
    ]


def test_the_order_of_the_source_does_not_matter(raw: RawMovieLens, tables: dict[str, pa.Table]) -> None:
    turned = RawMovieLens(
        *(table.take(list(range(table.num_rows))[::-1]) for table in (raw.ratings, raw.users, raw.movies))
    )
    for name, table in prepare(turned).items():
        assert table.equals(tables[name])


def test_a_rating_of_an_undescribed_film_is_refused(raw: RawMovieLens) -> None:
    with pytest.raises(MalformedSource, match=r"movie_id 5 has a rating and no description \(1 such"):
        prepare(RawMovieLens(raw.ratings, raw.users, raw.movies.slice(0, 4)))
