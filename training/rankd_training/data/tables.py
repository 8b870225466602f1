"""Single tables with a given split: hospital stays and census records. Each row is a candidate of its own.

The columns stay as they are; what a schema needs beside them is a key, and a time for the rows of the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rankd_training.errors import MalformedSource

__all__ = ["read_census", "read_diabetes"]

_DIABETES_ROWS = {"train": 81_412, "valid": 10_177, "test": 10_177}
# Neither source dates its rows; these are the ends of the years they cover.
_END_OF_2008_S = 1_230_767_999
_END_OF_1995_S = 820_454_399


def read_diabetes(folder: Path) -> Mapping[str, pa.Table]:
    """Hospital stays of diabetes patients with ARM-Net's ids and split -> `examples` and `items`.

    Raises MalformedSource where the split is not the published one: figures would not be comparable.
    """
    path = folder / "encoded.parquet"
    examples = _plain(pq.read_table(path))
    counts = {e["values"].as_py(): e["counts"].as_py() for e in examples["split"].value_counts()}
    if counts != _DIABETES_ROWS:
        raise MalformedSource(str(path), f"split has {counts} rows, ARM-Net's has {_DIABETES_ROWS}")
    return {"examples": examples, "items": _items(examples, ["label"], _END_OF_2008_S)}


def read_census(folder: Path) -> Mapping[str, pa.Table]:
    """Census records of 1994 and 1995 with two labels -> `examples` and `items`.

    `instance_weight` says how many people a record stands for: it is no feature, and is left out.
    """
    examples = _plain(pq.read_table(folder / "census_income_kdd.parquet")).drop_columns("instance_weight")
    examples = examples.add_column(0, "record_id", pa.array(range(examples.num_rows), pa.int64()))
    return {
        "examples": examples,
        "items": _items(examples, ["label_income", "label_never_married"], _END_OF_1995_S),
    }


def _plain(table: pa.Table) -> pa.Table:
    """Dictionaries as the strings they stand for."""
    plain = [
        pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type)
        for f in table.schema
    ]
    return table.cast(pa.schema(plain))


def _items(examples: pa.Table, labels: list[str], time_s: int) -> pa.Table:
    """What the store holds of each row: no label, no split, and a time."""
    times = pa.array([time_s] * examples.num_rows, pa.int64())
    return examples.drop_columns([*labels, "split"]).append_column("event_time", times)
