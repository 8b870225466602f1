"""Whom the demo ranks for: one user of a data set, and films this user has not rated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rankd.cli.screen import fail

__all__ = ["Case", "choose"]

_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Case:
    """One user, some films they liked lately, unseen films, and what films are called."""

    user: str
    liked: tuple[str, ...]
    item_ids: tuple[str, ...]
    titles: dict[str, str]


def choose(folder: Path, user: int | None, num_candidates: int) -> Case:
    """Take `user`, or the one seen last, and the most rated films among those they have not rated."""
    import pyarrow.parquet as pq

    films = pq.read_table(folder / "items.parquet", columns=["movie_id", "title"]).to_pydict()
    titles = {str(film): title for film, title in zip(films["movie_id"], films["title"], strict=True)}
    users = pq.read_table(folder / "users.parquet", columns=["user_id", "recent_liked", "event_time"])
    ids = users["user_id"].to_numpy()
    (matches,) = (
        np.nonzero(ids == user) if user is not None else ([int(np.argmax(users["event_time"].to_numpy()))],)
    )
    if not len(matches):
        fail(f"--user {user}: the data set has users {ids.min()} to {ids.max()}", 2)
    row = int(matches[0])
    ratings = pq.read_table(folder / "examples.parquet", columns=["user_id", "movie_id"])
    rated = ratings["movie_id"].to_numpy()
    seen = rated[ratings["user_id"].to_numpy() == ids[row]]
    known, counts = np.unique(rated, return_counts=True)
    by_count = known[np.argsort(-counts, kind="stable")]
    unseen = by_count[~np.isin(by_count, seen)][:num_candidates]
    liked = users["recent_liked"][row].as_py() or []
    return Case(
        user=str(ids[row]),
        liked=tuple(titles[str(film)] for film in liked[:_SHOWN]),
        item_ids=tuple(map(str, unseen.tolist())),
        titles=titles,
    )
