"""MovieLens-100k with several definitions of history beside the shipped one, for `histories.py`.

Every list holds what the user did strictly before the row's second, newest first. The examples stay as they
are prepared, with columns added; each definition is the shipped schema with other sequences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rankd_training.data import catalog
from rankd_training.data.history import Events, recent_before
from rankd_training.trials.trial import Source
from rankd_training.trials.withheld import without_test

__all__ = ["DATA", "LAST", "Sources"]

DATA, LAST, SHIPPED_LENGTH, LIKED_FROM = "movielens-100k", 50, 20, 4
SHIPPED = "recent_liked"

Numbers = npt.NDArray[np.int64]


def _films(name: str, length: int) -> str:
    return f"      - {{name: {name}, kind: sequence, dtype: int64, shares: movie_id, max_length: {length}}}\n"


_BOTH = _films("last_liked", LAST) + _films("last_disliked", LAST)
_STARS = (
    f"      - {{name: last_stars, kind: sequence, dtype: int64, vocabulary: [1, 2, 3, 4, 5], "
    f"max_length: {LAST}}}\n"
)
# Lines of the schema's user view, by what a contestant knows of the user's past.
DEFINITIONS: Mapping[str, str] = {
    "none": "",
    "liked": _films(SHIPPED, SHIPPED_LENGTH),
    "borrowed": _films("borrowed", SHIPPED_LENGTH),
    "both": _BOTH,
    "stars": _BOTH + _STARS,
}


class Sources:
    """The examples under each definition, whole and without test rows.

    Args:
        folder: where files are written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        prepared, shipped = catalog.get(DATA) / "examples.parquet", catalog.describe(DATA).schema
        table = _with_histories(pq.read_table(prepared))
        examples = folder / "examples.parquet"
        pq.write_table(table, examples)
        self.moment_n: Numbers = _codes(table, "user_id", "timestamp")  # rows of a user in one second
        text = shipped.read_text(encoding="utf-8")
        if text.count(DEFINITIONS["liked"]) != 1:
            raise SystemExit(f"{shipped}: expected the line {DEFINITIONS['liked'].strip()!r} once")
        self.whole: dict[str, Source] = {}
        for name, lines in DEFINITIONS.items():
            schema = folder / f"{name}.yaml"
            schema.write_text(text.replace(DEFINITIONS["liked"], lines), encoding="utf-8")
            self.whole[name] = Source(examples, schema)
        blind = without_test(self.whole["none"], folder / "withheld.parquet")
        self.blind = {name: replace(blind, schema=of.schema) for name, of in self.whole.items()}


def _with_histories(table: pa.Table) -> pa.Table:
    user_N, film_N, time_N, rating_N = (
        table[name].to_numpy().astype(np.int64) for name in ("user_id", "movie_id", "timestamp", "rating")
    )

    def last(value_N: Numbers) -> pa.ListArray[Any]:
        return recent_before(Events(user_N, time_N, value_N), user_N, time_N, length=LAST)

    stars, films = last(rating_N), last(film_N)
    liked = stars.values.to_numpy() >= LIKED_FROM
    split_N = np.array(table["split"].to_pylist())
    # Histories dealt out anew within each split: as long and as varied as the real ones, and about nobody.
    dealt_N = np.arange(table.num_rows)
    for split in np.unique(split_N):
        (rows,) = np.nonzero(split_N == split)
        dealt_N[rows] = np.random.default_rng(0).permutation(rows)
    return (
        table.append_column("last_liked", _kept(films, liked))
        .append_column("last_disliked", _kept(films, ~liked))
        .append_column("last_stars", stars)
        .append_column("borrowed", table[SHIPPED].take(dealt_N))
    )


def _kept(lists: pa.ListArray[Any], kept: npt.NDArray[np.bool_]) -> pa.ListArray[Any]:
    """The same lists without the values that are not kept."""
    before = np.concatenate(([0], np.cumsum(kept)))
    offsets = pa.array(before[lists.offsets.to_numpy()], type=pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(lists.values.to_numpy()[kept]))


def _codes(table: pa.Table, *columns: str) -> Numbers:
    rows = np.stack([table[name].to_numpy() for name in columns])
    return np.unique(rows, axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)
