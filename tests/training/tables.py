"""Small tables of examples for tests of reading and training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.training.fields import MIXED

NUM_USERS, NUM_ITEMS = 40, 18


def examples_table(num_rows: int = 1200, *, seed: int = 0) -> pa.Table:
    """Rows for the mixed schema: clicked where income and price lie on the same side of zero, mostly.

    Neither says anything alone, so that a linear model stays at chance.
    """
    generator = np.random.default_rng(seed)
    user_n = generator.integers(NUM_USERS, size=num_rows)
    item_n = generator.integers(NUM_ITEMS, size=num_rows)
    income_n, price_n = generator.normal(size=(2, num_rows))
    match_n = (income_n > 0) == (price_n > 0)
    clicked_n = generator.random(num_rows) < np.where(match_n, 0.9, 0.1)
    split_n = np.resize(["train"] * 4 + ["valid", "test"], num_rows)
    return pa.table(
        {
            "user_id": user_n,
            "income": income_n.astype(np.float32),
            "recent": [list(map(int, generator.integers(NUM_ITEMS, size=k % 4))) for k in range(num_rows)],
            "age": pa.array([None if k % 10 == 0 else int(k % 60) for k in range(num_rows)], pa.int64()),
            "item_id": item_n,
            "tags": [["a", "b"][: k % 3] for k in range(num_rows)],
            "price": price_n,
            "weight": pa.array([None if k % 7 == 0 else 1.5 for k in range(num_rows)], pa.float64()),
            "at": np.arange(num_rows) * 3600,
            "clicked": clicked_n.astype(np.int8),
            "bought": clicked_n & (generator.random(num_rows) < 0.7),
            "split": split_n,
        }
    )


def with_column(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    """Replace one column."""
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def with_value(table: pa.Table, name: str, row: int, value: Any) -> pa.Table:
    """Replace one value."""
    values = table[name].to_pylist()
    values[row] = value
    return with_column(table, name, values)


def negatives_thinned(table: pa.Table, *, kept_every: int = 6) -> pa.Table:
    """Drop most training rows without a click, as is done to save work: scores come out too high."""
    click_n, split_n = np.asarray(table["clicked"]), np.asarray(table["split"].to_pylist())
    thinned_n = (click_n == 0) & (split_n == "train")
    kept_n = ~thinned_n | (np.cumsum(thinned_n) % kept_every == 0)
    return table.filter(pa.array(kept_n))


def write(folder: Path, table: pa.Table | None = None) -> tuple[Path, Path]:
    """Write `examples.parquet` and `schema.yaml` -> their paths."""
    examples, schema = folder / "examples.parquet", folder / "schema.yaml"
    pq.write_table(examples_table() if table is None else table, examples)
    schema.write_text(MIXED, encoding="utf-8")
    return examples, schema
