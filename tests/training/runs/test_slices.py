from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankd_contract.schema_file import parse_schema
from rankd_training.errors import SettingError
from rankd_training.examples.examples import load_examples
from rankd_training.runs.slices import by_activity, by_field
from tests.training.fields import MIXED
from tests.training.tables import NUM_USERS, examples_table, with_column

HUGE = 1 << 62


@pytest.mark.parametrize(
    "id_of",
    [
        int,
        lambda user: f"user-{user:05d}",
        lambda user: HUGE + user,
        lambda user: -1_000_000_007 * (user + 1),
    ],
    ids=["small", "text", "huge", "negative"],
)
def test_activity_counts_training_rows_whatever_users_are_called(tmp_path: Path, id_of: Any) -> None:
    table = examples_table()
    users = table["user_id"].to_pylist()
    newcomer = table["split"].to_pylist().index("valid")
    ids = [id_of(NUM_USERS if row == newcomer else user) for row, user in enumerate(users)]
    # Rows are grouped by a column of their own: the schema's user_id is a number.
    pq.write_table(with_column(table, "user_id", users).append_column("who", [ids]), tmp_path / "e.parquet")
    examples = load_examples(tmp_path / "e.parquet", parse_schema(MIXED), group_column="who")
    row_N = examples.rows["valid"]
    slices = {piece.title: row_N[piece.at] for piece in by_activity(examples, row_N)}
    assert slices["none"].tolist() == [newcomer]
    assert sum(len(rows) for rows in slices.values()) == len(row_N)
    trained = np.bincount(np.array(users)[examples.rows["train"]], minlength=NUM_USERS + 1)
    for title, rows in list(slices.items())[1:]:
        least, _, most = title.partition(" to ")
        for row in rows.tolist():
            assert int(least) <= trained[users[row]] <= int(most or least)


def test_decimals_and_moments_are_told_apart_in_quarters(tmp_path: Path) -> None:
    n = 1200
    cents = [None if k == 7 else Decimal(k) / 100 for k in range(n)]
    table = examples_table().append_column("cents", pa.array(cents, pa.decimal128(9, 2)))
    moments = table["at"].cast(pa.timestamp("s")).cast(pa.timestamp("us", "UTC"))
    table = table.append_column("seen", moments)
    pq.write_table(table, tmp_path / "e.parquet")
    schema, row_n = parse_schema(MIXED), np.arange(n)
    by_cents = by_field(tmp_path / "e.parquet", schema, "cents", row_n)
    assert [len(piece.at) for piece in by_cents] == [1, 300, 300, 300, 299]
    assert by_cents[1].title == "0 to 3"
    by_moment = by_field(tmp_path / "e.parquet", schema, "seen", row_n)
    assert by_moment[0].title == "1970-01-01T00:00:00 to 1970-01-13T11:00:00 UTC"
    assert [len(piece.at) for piece in by_moment] == [300] * 4


def test_moments_that_are_missing_are_no_hour(tmp_path: Path) -> None:
    table = examples_table()
    seconds = [None if k % 5 == 0 else 3600 * k for k in range(table.num_rows)]
    pq.write_table(with_column(table, "at", seconds), tmp_path / "e.parquet")
    slices = by_field(tmp_path / "e.parquet", parse_schema(MIXED), "hour", np.arange(table.num_rows))
    assert {piece.title: len(piece.at) for piece in slices}["missing"] == table.num_rows // 5


def test_a_column_that_rows_cannot_be_told_apart_by_is_refused(tmp_path: Path) -> None:
    table = examples_table().append_column("where", pa.array([{"x": 1}] * 1200))
    pq.write_table(table, tmp_path / "e.parquet")
    with pytest.raises(SettingError, match="cannot be told apart by 'where'"):
        by_field(tmp_path / "e.parquet", parse_schema(MIXED), "where", np.arange(1200))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_hours_of_timestamps_are_those_of_their_seconds(unit: Any, tmp_path: Path) -> None:
    table = examples_table()
    schema, row_N = parse_schema(MIXED), np.arange(table.num_rows)
    moments = table["at"].cast(pa.timestamp("s")).cast(pa.timestamp(unit))
    pq.write_table(table, tmp_path / "seconds.parquet")
    at = table.column_names.index("at")
    pq.write_table(table.set_column(at, "at", moments), tmp_path / "moments.parquet")
    plain, timed = (
        by_field(tmp_path / f"{name}.parquet", schema, "hour", row_N) for name in ("seconds", "moments")
    )
    assert [(one.title, one.at.tolist()) for one in timed] == [(one.title, one.at.tolist()) for one in plain]
