from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from rankd_training.data.movielens import EXAMPLES, GENRES, ITEMS, USERS, prepare
from rankd_training.data.prepared import load_record
from rankd_training.data.synthetic import RATING_CUTS, SyntheticConfig, generate, write_synthetic

SMALL = SyntheticConfig(users=60, films=80, ratings=1_500, days=30, seed=3)


def test_the_prepared_form_is_that_of_the_real_data(tmp_path: Path) -> None:
    folder = write_synthetic(tmp_path / "films", SMALL)
    for name, schema in (("examples", EXAMPLES), ("users", USERS), ("items", ITEMS)):
        assert pq.read_schema(folder / f"{name}.parquet").equals(schema)
    record = load_record(folder)
    assert {name: file.rows for name, file in record.files.items()} == {
        "examples.parquet": 1_500,
        "users.parquet": 60,
        "items.parquet": 80,
    }
    assert record.provenance.source_sha256 == SMALL.sha256()


def test_the_same_seed_gives_the_same_data_and_another_seed_does_not() -> None:
    one, again = generate(SMALL), generate(SMALL)
    assert one.ratings.equals(again.ratings)
    assert one.users.equals(again.users)
    assert one.movies.equals(again.movies)
    other = generate(SyntheticConfig(users=60, films=80, ratings=1_500, days=30, seed=4))
    assert not one.ratings.equals(other.ratings)


@pytest.mark.parametrize(
    "config",
    [
        SyntheticConfig(users=1, films=2, ratings=1, days=1),
        SyntheticConfig(users=3, films=10, ratings=15),  # every user at the limit
        SyntheticConfig(users=1_100, films=30, ratings=9_000),  # more users than one block
    ],
)
def test_any_allowed_size_is_made_to_the_row(config: SyntheticConfig) -> None:
    raw = generate(config)
    assert (raw.users.num_rows, raw.movies.num_rows, raw.ratings.num_rows) == (
        config.users,
        config.films,
        config.ratings,
    )
    pairs = raw.ratings.group_by(["user_id", "movie_id"]).aggregate([])
    assert pairs.num_rows == config.ratings, "nobody rates a film twice"
    assert len(set(raw.ratings["user_id"].to_pylist())) == config.users, "everybody rates something"


@pytest.mark.parametrize(
    "sizes", [{"users": 0}, {"films": 0}, {"days": 0}, {"ratings": 10}, {"ratings": 2_000_000}]
)
def test_sizes_that_cannot_be_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must be positive|expected 900"):
        SyntheticConfig(**sizes)


@pytest.fixture(scope="module")
def default_tables() -> dict[str, pa.Table]:
    began = time.perf_counter()
    tables = prepare(generate(SyntheticConfig()))
    assert time.perf_counter() - began < 5, "the demo makes it while somebody waits"
    return tables


def test_ratings_and_users_look_like_the_real_ones(default_tables: dict[str, pa.Table]) -> None:
    examples = default_tables["examples"]
    rating = examples["rating"].to_numpy()
    shares = [float((rating <= value).mean()) for value in range(1, 5)]
    assert shares == pytest.approx(RATING_CUTS, abs=0.001)
    _, per_film = np.unique(examples["movie_id"].to_numpy(), return_counts=True)
    busiest = np.sort(per_film)[::-1]
    assert busiest[:150].sum() > 0.25 * len(rating), "a tenth of the films has over a quarter of the ratings"
    split = np.array(examples["split"].to_pylist())
    user = examples["user_id"].to_numpy()
    returning = np.isin(user[split == "test"], user[split == "train"])
    assert 0.2 < returning.mean() < 0.8, "the test split holds both returning and new users"


def test_titles_are_all_different_and_carry_their_year(default_tables: dict[str, pa.Table]) -> None:
    items = default_tables["items"]
    titles = [str(title) for title in items["title"].to_pylist()]
    assert len(set(titles)) == len(titles)
    assert all(
        title.endswith(f" ({year})") for title, year in zip(titles, items["year"].to_pylist(), strict=True)
    )


def _one_hot(values: list[Any] | npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    names, code = np.unique(values, return_inverse=True)
    return np.eye(len(names))[code]


def _flags(genres: pa.ChunkedArray[Any]) -> npt.NDArray[np.float64]:
    return np.array([np.isin(GENRES, names or []) for names in genres.to_pylist()], dtype=np.float64)


def test_crosses_of_user_and_history_with_genre_beat_main_effects(
    default_tables: dict[str, pa.Table],
) -> None:
    examples, items = default_tables["examples"].slice(60_000), default_tables["items"]
    genre = _flags(examples["genres"])
    genre_of_film = _flags(items["genres"])
    history = examples["recent_liked"].to_pylist()
    taste = np.array(
        [
            genre_of_film[np.array(films) - 1].mean(axis=0) if films else np.zeros(len(GENRES))
            for films in history
        ]
    )
    occupation = _one_hot(examples["occupation"].to_pylist())
    age = examples["age"].to_numpy()[:, None] / 40 - 1
    female = _one_hot(examples["gender"].to_pylist())[:, :1]
    main = np.hstack([genre, taste, occupation, age, female, examples["year"].to_numpy()[:, None] / 20 - 100])
    user_side = np.hstack([taste, occupation, age, female])
    crossed = np.hstack([main, (user_side[:, :, None] * genre[:, None, :]).reshape(len(main), -1)])
    liked = examples["liked"].to_numpy()
    train, test = (np.array(examples["split"].to_pylist()) == name for name in ("train", "test"))

    def auc(features: npt.NDArray[np.float64]) -> float:
        model = LogisticRegression(C=0.1, max_iter=500).fit(features[train], liked[train])
        return float(roc_auc_score(liked[test], model.decision_function(features[test])))

    assert auc(crossed) > auc(main) + 0.05
