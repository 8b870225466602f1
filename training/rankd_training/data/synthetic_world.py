"""The invented films and users behind the synthetic ratings, with the tastes that nobody gets to see.

Legend: U users, M films, G genres (in the order of GENRES), O occupations, S styles (no column shows them).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rankd_training.data.movielens import GENRES

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

NUM_STYLES = 4
LAST_YEAR = 2023
MEAN_AGE = 33.0

# occupation: (share, typical age, genres it leans to)
OCCUPATIONS: dict[str, tuple[float, float, tuple[str, ...]]] = {
    "student": (0.22, 21, ("Animation", "Horror", "Sci-Fi")),
    "educator": (0.11, 43, ("Documentary", "Drama")),
    "engineer": (0.10, 35, ("Sci-Fi", "War")),
    "programmer": (0.09, 31, ("Sci-Fi", "Fantasy", "Animation")),
    "administrator": (0.08, 38, ("Romance", "Comedy")),
    "writer": (0.07, 37, ("Film-Noir", "Mystery", "Drama")),
    "artist": (0.06, 32, ("Musical", "Film-Noir", "Fantasy")),
    "librarian": (0.06, 41, ("Mystery", "Documentary")),
    "healthcare": (0.06, 40, ("Romance", "Drama")),
    "executive": (0.05, 45, ("Crime", "Thriller")),
    "salesman": (0.05, 36, ("Action", "Comedy")),
    "homemaker": (0.03, 38, ("Children's", "Musical")),
    "retired": (0.02, 66, ("Western", "War", "Musical")),
}
GENRE_SHARES: dict[str, float] = {
    "Action": 0.12,
    "Adventure": 0.07,
    "Animation": 0.04,
    "Children's": 0.05,
    "Comedy": 0.18,
    "Crime": 0.06,
    "Documentary": 0.04,
    "Drama": 0.20,
    "Fantasy": 0.03,
    "Film-Noir": 0.02,
    "Horror": 0.06,
    "Musical": 0.03,
    "Mystery": 0.04,
    "Romance": 0.09,
    "Sci-Fi": 0.06,
    "Thriller": 0.09,
    "War": 0.04,
    "Western": 0.02,
}
YOUNG_LEAN = ("Action", "Animation", "Horror", "Sci-Fi")
OLD_LEAN = ("Documentary", "Musical", "War", "Western")
FEMALE_LEAN = ("Romance", "Musical", "Mystery")
MALE_LEAN = ("Action", "War", "Sci-Fi")


@dataclass(frozen=True, slots=True)
class Films:
    """M films."""

    genre_MG: BoolArray
    year_M: IntArray
    log_popularity_M: FloatArray
    quality_M: FloatArray
    style_MS: FloatArray


@dataclass(frozen=True, slots=True)
class Users:
    """U users."""

    age_U: IntArray
    female_U: BoolArray
    occupation_U: IntArray
    zip_code_U: IntArray
    leniency_U: FloatArray
    taste_UG: FloatArray
    style_US: FloatArray
    usual_hour_U: FloatArray


def leaning(genres: tuple[str, ...]) -> FloatArray:
    """A vector over GENRES: 1 at those named, 0 elsewhere."""
    return np.isin(GENRES, genres).astype(np.float64)


def draw_films(num_films: int, rng: np.random.Generator) -> Films:
    """Draw films: one to three genres, Zipf popularity, quality a little tied to it."""
    share_G = np.log([GENRE_SHARES[genre] for genre in GENRES])
    appeal_MG = share_G + rng.gumbel(size=(num_films, len(GENRES)))
    num_genres_M = rng.choice([1, 2, 3], size=num_films, p=[0.45, 0.37, 0.18])
    rank_MG = np.argsort(np.argsort(-appeal_MG, axis=1), axis=1)
    log_popularity_M = -0.9 * np.log(rng.permutation(num_films) + 5.0)
    known_M = (log_popularity_M - log_popularity_M.mean()) / log_popularity_M.std()
    return Films(
        genre_MG=rank_MG < num_genres_M[:, None],
        year_M=np.maximum(LAST_YEAR - rng.exponential(15.0, num_films), 1935).astype(np.int64),
        log_popularity_M=log_popularity_M,
        quality_M=0.2 * known_M + rng.normal(0.0, 0.4, num_films),
        style_MS=rng.normal(size=(num_films, NUM_STYLES)),
    )


def draw_users(num_users: int, rng: np.random.Generator) -> Users:
    """Draw users: tastes of their own, tilted by age, gender and occupation."""
    age_U = np.clip(np.rint(13 + rng.gamma(3.2, 6.4, num_users)), 13, 75)
    female_U = rng.random(num_users) < 0.35  # noqa: PLR2004 - MovieLens has about as many
    share_O, typical_age_O, leans = zip(*OCCUPATIONS.values(), strict=True)
    fits_UO = np.log(share_O) - 0.5 * ((age_U[:, None] - np.asarray(typical_age_O)) / 9.0) ** 2
    occupation_U = np.argmax(fits_UO + rng.gumbel(size=fits_UO.shape), axis=1)

    elder_U = (age_U - MEAN_AGE) / 12.0
    age_taste_UG = elder_U[:, None] * (leaning(OLD_LEAN) - leaning(YOUNG_LEAN))
    gender_taste_UG = np.where(female_U[:, None], 1.0, -1.0) * (leaning(FEMALE_LEAN) - leaning(MALE_LEAN))
    work_taste_UG = np.stack([leaning(lean) for lean in leans])[occupation_U]
    own_taste_UG = rng.normal(size=(num_users, len(GENRES)))
    return Users(
        age_U=age_U.astype(np.int64),
        female_U=female_U,
        occupation_U=occupation_U,
        zip_code_U=rng.integers(1_000, 99_999, num_users),
        leniency_U=rng.normal(0.0, 0.45, num_users),
        taste_UG=0.35 * age_taste_UG + 0.35 * gender_taste_UG + 0.8 * work_taste_UG + 0.75 * own_taste_UG,
        style_US=rng.normal(0.0, 0.35, (num_users, NUM_STYLES)),
        usual_hour_U=20.0 - 3.0 * np.clip(elder_U, -1, 2) + rng.normal(0.0, 3.0, num_users),
    )
