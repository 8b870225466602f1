"""A table of interactions, and what is proposed for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rankd_contract.schema import FeatureSchema
from rankd_contract.schema_file import parse_schema
from rankd_training.data.schema_proposal import Roles, SchemaProposal, propose_schema

N = 3000


def interactions() -> pa.Table:
    rng = np.random.default_rng(4)
    user, item = rng.integers(0, 400, N), rng.integers(0, 300, N)
    country = np.array(["de", "fr", "it", "es"])[user % 4]
    noise = rng.normal(size=N)
    return pa.table(
        {
            "user_id": user,
            "item_id": item,
            "country": pa.array(country).dictionary_encode(),
            "member": user % 3 == 0,
            "brand": [f"brand-{i % 280}" for i in item],
            "genres": [["a", "b", "c"][: i % 4] for i in item],
            "price": pa.array([None if k % 50 == 0 else float(np.exp(3 * x)) for k, x in enumerate(noise)]),
            "bids": np.where(rng.random(N) < 0.8, 0, rng.integers(100, 90_000, N)),
            "temperature": noise.astype(np.float32),
            "recent": [list(map(int, rng.integers(0, 300, k % 5))) for k in range(N)],
            "timestamp": 1_700_000_000 + 3600 * np.arange(N),
            "seen_at": pa.array(np.arange(N)).cast(pa.timestamp("s")),
            "level": pa.array([None if k % 9 == 0 else [0.7, 2.0, 5.0][k % 3] for k in range(N)]),
            "broken?": ["x"] * N,
            "nothing": pa.nulls(N, pa.int64()),
            "where": pa.array([{"x": 1}] * N),
            "odd name!": rng.integers(0, 5, N),
            "click": (noise + (item % 2) > 0.5).astype(np.int8),
        }
    )


def proposed(tmp_path: Path, table: pa.Table | None = None, **roles: Any) -> tuple[str, FeatureSchema]:
    text = proposal(tmp_path, table, **roles).text
    return text, parse_schema(text)


def proposal(tmp_path: Path, table: pa.Table | None = None, **roles: Any) -> SchemaProposal:
    path = tmp_path / "rows.parquet"
    pq.write_table(interactions() if table is None else table, path)
    return propose_schema(path, Roles(**roles), name="rows")


def shopping() -> pa.Table:
    """Clicks, and a second outcome of the same impression that no name gives away as the label."""
    rng = np.random.default_rng(5)
    first = 1_600_000_000 + 86_400 * (np.arange(N) % 400)
    more = {
        "ordered": (rng.random(N) < 0.1).astype(np.int8),
        "shown_first": rng.random(N) < 0.5,
        "registered_at": pa.array(first[interactions()["user_id"].to_numpy()]).cast(pa.timestamp("s")),
    }
    table = interactions().rename_columns({"click": "clicked"}).drop_columns(["seen_at"])
    for name, values in more.items():
        table = table.append_column(name, pa.array(values))
    return table


def with_columns(**more: Any) -> pa.Table:
    table = interactions()
    for name, values in more.items():
        table = table.append_column(name.replace("__", " "), pa.array(values))
    return table
