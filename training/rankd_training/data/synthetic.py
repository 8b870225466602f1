"""Invented users, films and ratings with planted tastes, in the same raw form as the real data.

Deterministic for a configuration. What is planted, so that a model has something to find beyond main effects:
user taste × genre (tilted by age, gender and occupation), the session's mood × genre (visible in the newest
liked films), age × the film's year, hour of day × genre. It is no model of real people.
Legend: N ratings, U users, M films, S sessions, G genres.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from rankd_training.data.movielens import GENRES, RawMovieLens, prepare
from rankd_training.data.prepared import Provenance, publish
from rankd_training.data.synthetic_titles import invent_titles
from rankd_training.data.synthetic_world import (
    MEAN_AGE,
    OCCUPATIONS,
    Films,
    FloatArray,
    IntArray,
    Users,
    draw_films,
    draw_users,
    leaning,
)

GENERATOR = 1
FIRST_SECOND = 1_704_067_200  # 2024-01-01 00:00 UTC
DAY_S = 86_400
HOUR_S = 3_600
# Shares of the ratings 1 to 4, cumulated, as in MovieLens-100k; the rest are fives.
RATING_CUTS = (0.061, 0.175, 0.446, 0.788)
NIGHT_LEAN = ("Horror", "Thriller", "Film-Noir")
MORNING_LEAN = ("Children's", "Animation", "Documentary")
USERS_PER_BLOCK = 512


@dataclass(frozen=True, slots=True)
class SyntheticConfig:
    """How much to invent. At most half of all user and film pairs can be rated."""

    users: int = 900
    films: int = 1_500
    ratings: int = 100_000
    days: int = 210
    seed: int = 17

    def __post_init__(self) -> None:
        if min(self.users, self.films, self.days) < 1:
            raise ValueError(f"users, films and days must be positive: {self}")
        if not self.users <= self.ratings <= self.users * (self.films // 2):
            raise ValueError(
                f"ratings is {self.ratings}, expected {self.users} (one a user) "
                f"to {self.users * (self.films // 2)} (half of the films a user)"
            )

    def sha256(self) -> str:
        """Identify what `generate` makes of this."""
        return hashlib.sha256(json.dumps([GENERATOR, asdict(self)]).encode()).hexdigest()


def write_synthetic(folder: Path, config: SyntheticConfig) -> Path:
    """Generate and prepare into `folder`, in exactly the form of the catalogue's data sets."""
    provenance = Provenance(folder.name, f"generated: {config}", config.sha256(), "Apache-2.0", "", GENERATOR)
    publish(folder, prepare(generate(config)), provenance, time_column=("examples", "timestamp"))
    return folder


def generate(config: SyntheticConfig) -> RawMovieLens:
    """Invent the raw form; the same configuration gives the same rows."""
    films_rng, users_rng, events_rng, titles_rng = (
        np.random.default_rng([config.seed, part]) for part in range(4)
    )
    films = draw_films(config.films, films_rng)
    users = draw_users(config.users, users_rng)
    return RawMovieLens(
        ratings=_ratings(config, users, films, events_rng),
        users=_user_table(users),
        movies=_movie_table(films, titles_rng),
    )


def _ratings(config: SyntheticConfig, users: Users, films: Films, rng: np.random.Generator) -> pa.Table:
    num_ratings_U = _ratings_per_user(config, rng)
    user_N = np.repeat(np.arange(config.users), num_ratings_U)
    film_N = _choose_films(num_ratings_U, users, films, rng)
    # Sessions: a user joins some day and comes back more often at first. The order of sessions is by time.
    num_sessions_U = 1 + rng.poisson(num_ratings_U / 12)
    session_user_S = np.repeat(np.arange(config.users), num_sessions_U)
    joined_U = rng.beta(0.8, 1.4, config.users) * config.days
    day_S = joined_U[session_user_S] + (config.days - joined_U[session_user_S]) * rng.beta(
        0.7, 1.5, len(session_user_S)
    )
    hour_S = (users.usual_hour_U[session_user_S] + rng.normal(0.0, 2.5, len(session_user_S))) % 24
    mood_S = np.argmax(
        1.5 * users.taste_UG[session_user_S] + rng.gumbel(size=(len(session_user_S), len(GENRES))), axis=1
    )
    first_session_U = np.cumsum(num_sessions_U) - num_sessions_U
    session_N = first_session_U[user_N] + (rng.random(config.ratings) * num_sessions_U[user_N]).astype(
        np.int64
    )
    start_S = FIRST_SECOND + np.floor(day_S).astype(np.int64) * DAY_S + (hour_S * HOUR_S).astype(np.int64)
    time_N = start_S[session_N] + 30 * _position_within(session_N) + rng.integers(0, 60, config.ratings)
    hour_N = (time_N % DAY_S) / HOUR_S
    liking_N = _liking(users, films, user_N, film_N, mood_S[session_N], hour_N)
    liking_N += rng.normal(0.0, 0.7, config.ratings)
    rating_N = 1 + np.searchsorted(np.quantile(liking_N, RATING_CUTS), liking_N)
    return pa.table({"user_id": user_N + 1, "movie_id": film_N + 1, "rating": rating_N, "timestamp": time_N})


def _ratings_per_user(config: SyntheticConfig, rng: np.random.Generator) -> IntArray:
    """Counts that sum to `ratings`: a few users rate most, none rates over half of the films."""
    base = max(1, min(15, config.ratings // config.users // 2))
    weight_U = rng.lognormal(0.0, 0.9, config.users)
    count_U = base + rng.multinomial(config.ratings - base * config.users, weight_U / weight_U.sum())
    most = config.films // 2
    excess = int(np.maximum(count_U - most, 0).sum())
    count_U = np.minimum(count_U, most)
    # What the busiest could not take goes to the others in turn, as far as each has room.
    room_U = most - count_U
    extra_U: IntArray = np.clip(excess - (np.cumsum(room_U) - room_U), 0, room_U)
    return count_U + extra_U


def _choose_films(num_ratings_U: IntArray, users: Users, films: Films, rng: np.random.Generator) -> IntArray:
    """Each user's films without repetition, the popular and the fitting more likely (Gumbel top-k)."""
    chosen = []
    for first in range(0, len(num_ratings_U), USERS_PER_BLOCK):
        block = slice(first, first + USERS_PER_BLOCK)
        wish_UM = 0.5 * (users.taste_UG[block] @ films.genre_MG.T) + films.log_popularity_M
        wish_UM += rng.gumbel(size=wish_UM.shape)
        ranked_UM = np.argsort(-wish_UM, axis=1)
        chosen.append(ranked_UM[np.arange(ranked_UM.shape[1]) < num_ratings_U[block, None]])
    return np.concatenate(chosen)


def _position_within(group_N: IntArray) -> IntArray:
    """The how-manieth of its group each row is, from 0, in row order."""
    order_N = np.argsort(group_N, kind="stable")
    sorted_N = group_N[order_N]
    position_N = np.empty_like(order_N)
    position_N[order_N] = np.arange(len(group_N)) - np.searchsorted(sorted_N, sorted_N)
    return position_N


def _liking(
    users: Users, films: Films, user_N: IntArray, film_N: IntArray, mood_N: IntArray, hour_N: FloatArray
) -> FloatArray:
    genre_NG = films.genre_MG[film_N]
    night_N = np.clip(np.cos((hour_N - 23.0) / 24 * 2 * np.pi), 0, None)
    morning_N = np.clip(np.cos((hour_N - 9.0) / 24 * 2 * np.pi), 0, None)
    taste_N = (users.taste_UG[user_N] * genre_NG).sum(axis=1) / np.sqrt(genre_NG.sum(axis=1))
    elder_N = (users.age_U[user_N] - MEAN_AGE) / 12.0
    vintage_N = (2000 - films.year_M[film_N]) / 20.0
    in_mood_N = genre_NG[np.arange(len(user_N)), mood_N]
    liking_N: FloatArray = (
        users.leniency_U[user_N]
        + films.quality_M[film_N]
        + taste_N
        + (users.style_US[user_N] * films.style_MS[film_N]).sum(axis=1)
        + 0.9 * in_mood_N
        + 0.25 * elder_N * vintage_N
        + 0.6 * night_N * (genre_NG @ leaning(NIGHT_LEAN))
        + 0.6 * morning_N * (genre_NG @ leaning(MORNING_LEAN))
    )
    return liking_N


def _user_table(users: Users) -> pa.Table:
    return pa.table(
        {
            "user_id": np.arange(1, len(users.age_U) + 1),
            "age": users.age_U,
            "gender": np.where(users.female_U, "F", "M"),
            "occupation": np.asarray(list(OCCUPATIONS))[users.occupation_U],
            "zip_code": np.strings.zfill(users.zip_code_U.astype(str), 5),
        }
    )


def _movie_table(films: Films, rng: np.random.Generator) -> pa.Table:
    genres = [[genre for genre, has in zip(GENRES, row, strict=True) if has] for row in films.genre_MG]
    titles = invent_titles([names[0] for names in genres], films.year_M.tolist(), rng)
    return pa.table(
        {
            "movie_id": np.arange(1, len(genres) + 1),
            "title": titles,
            "genres": pa.array(genres, type=pa.list_(pa.string())),
            "year": films.year_M,
        }
    )
