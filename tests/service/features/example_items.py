"""Rows of the example schema's items, and their import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rankd_service.features.importer import ImportReport, import_rows
from tests.support.example_schema import EXAMPLE

ITEMS = EXAMPLE.view("item_profile")
NOON_S = 1_800_000_000


def items(n: int = 3, **columns: Any) -> dict[str, Any]:
    """Columns of n items; those given replace or (as None) remove."""
    all_columns: dict[str, Any] = {
        "item_id": pa.array(range(100, 100 + n)),
        "title": pa.array([f"title {i}" for i in range(n)]),
        "price": pa.array([0.5 * i for i in range(n)]),
        "stock": pa.array(range(n)),
        "event_time": pa.array([NOON_S + i for i in range(n)]),
    }
    return {k: v for k, v in {**all_columns, **columns}.items() if v is not None}


def written(tmp_path: Path, columns: dict[str, Any], **options: Any) -> Path:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table(columns), path, **options)
    return path


def import_items(tmp_path: Path, url: str, columns: dict[str, Any], **options: Any) -> ImportReport:
    return import_rows(written(tmp_path, columns), EXAMPLE, ITEMS, url, **options)
