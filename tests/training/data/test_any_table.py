"""Whatever a table holds: a proposal is a schema, or a message of ours says why there is none."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankd_contract.schema_file import parse_schema
from rankd_training.data.schema_proposal import Roles, propose_schema
from rankd_training.errors import ExamplesError

NAMES = (
    *("user_id", "item_id", "user", "ts", "created_at", "price", "a b", "é", "yes", "null", "1e5", "row_id"),
    *(
        "tags",
        "recent_items",
        "count",
        "flag",
        "split",
        "weird\tname",
        "{",
        "#c",
        "'q'",
        '"d"',
        "-1",
        "x" * 90,
    ),
)
START = datetime(2024, 1, 1)  # noqa: DTZ001  # as many files have it
Made = Callable[[random.Random, int], Any]


def several(one: Callable[[random.Random], Any], kind: Any = None) -> Made:
    """A column of values, every tenth of which is missing."""

    def made(rng: random.Random, n: int) -> Any:
        return pa.array([None if rng.random() < 0.1 else one(rng) for _ in range(n)], kind)

    return made


KINDS: dict[str, Made] = {
    "small numbers": several(lambda r: r.randint(-3, 5)),
    "large numbers": several(lambda r: r.randint(-(2**62), 2**62)),
    "another in each row": lambda r, n: pa.array(r.sample(range(10 * n), n)),
    "seconds": several(lambda r: 1_700_000_000 + r.randint(0, 10**6)),
    "milliseconds": several(lambda r: 1_700_000_000_000 + r.randint(0, 10**9)),
    "measures": several(lambda r: r.gauss(0, 1)),
    "whole fractions": several(lambda r: float(r.randint(0, 50))),
    "infinite": several(lambda r: r.choice([1.0, float("inf"), float("nan")])),
    "text": several(lambda r: f"v{r.randint(0, 400)}"),
    "empty text": several(lambda r: r.choice(["", "a"])),
    "another text in each row": lambda r, n: pa.array([f"u{k}" for k in range(n)]),
    "times": several(lambda r: START + timedelta(hours=r.randint(0, 5000)), pa.timestamp("us")),
    "times as text": several(lambda r: f"2024-01-{r.randint(1, 28):02}"),
    "decimals": several(lambda r: Decimal(r.randint(0, 9999)) / 100, pa.decimal128(10, 2)),
    "lists": several(lambda r: [r.randint(0, 30) for _ in range(r.randint(0, 4))], pa.list_(pa.int64())),
    "lists with nulls": several(lambda r: [None, 1], pa.list_(pa.int64())),
    "flags": several(lambda r: r.random() < 0.5),
    "nothing": lambda _, n: pa.nulls(n),
    "unsigned": several(lambda r: r.randint(0, 2**64 - 1), pa.uint64()),
    "bytes": several(lambda r: b"\xff", pa.binary()),
    "structs": several(lambda r: {"a": 1}),
    "days": several(lambda r: r.randint(0, 20_000), pa.date32()),
}


def proposed(seed: int, path: Path) -> bool:
    """Whether a table of random columns got a schema, else a message; any other exception fails the test."""
    rng = random.Random(seed)
    n = rng.choice([40, 300])
    chosen = {name: rng.choice(list(KINDS)) for name in rng.sample(NAMES, rng.randint(2, 10))}
    columns = {name: KINDS[kind](rng, n) for name, kind in chosen.items()}
    columns["label"] = pa.array(np.arange(n) % 2)
    pq.write_table(pa.table(columns), path)
    try:
        text = propose_schema(path, Roles(), name="rows").text
    except ExamplesError:
        return False
    fields = parse_schema(text).fields.values()
    assert {field.source for field in fields} <= set(columns) - {"label"}
    return True


def test_any_table_gets_a_schema_or_a_message(tmp_path: Path) -> None:
    assert sum(proposed(seed, tmp_path / "rows.parquet") for seed in range(80)) > 40


def test_a_view_without_a_field_says_why(tmp_path: Path) -> None:
    columns = {"user_id": pa.array([7] * 40), "item_id": pa.array(range(40)), "label": pa.array([0, 1] * 20)}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    with pytest.raises(
        ExamplesError, match=r"nothing can be a field of view 'user' \(user_id: the same in every"
    ):
        propose_schema(tmp_path / "rows.parquet", Roles(), name="rows")
