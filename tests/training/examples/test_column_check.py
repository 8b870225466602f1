from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rankd_contract.schema_file import load_schema
from rankd_training.examples import column_check
from rankd_training.examples.column_check import silent_columns
from rankd_training.examples.examples import load_examples
from tests.training.tables import examples_table, write

ROWS = 1200


def warnings_of(folder: Path, **columns: Any) -> tuple[str, ...]:
    table = examples_table(ROWS)
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    examples, schema = write(folder, table)
    return silent_columns(load_examples(examples, load_schema(schema)))


def test_columns_that_differ_are_not_warned_of(tmp_path: Path) -> None:
    assert warnings_of(tmp_path) == ()


SILENT: dict[str, tuple[str, Any, str]] = {
    "no value": ("item_id", pa.nulls(ROWS, pa.int64()), "no training row has a value"),
    "empty lists": ("tags", pa.array([[]] * ROWS, pa.list_(pa.string())), "no training row has a value"),
    "one id": ("item_id", pa.array([7] * ROWS), "every training row has the same value"),
    "one list": ("tags", pa.array([["a", "b"]] * ROWS), "every training row has the same value"),
    "one number": ("income", pa.array([2.5] * ROWS, pa.float32()), "every training row has the same value"),
    "no number": ("income", pa.nulls(ROWS, pa.float32()), "or no value"),
    "one hour": ("at", pa.array([3600] * ROWS), "every training row has the same value"),
}


@pytest.mark.parametrize("rows_at_once", [1 << 18, 100])
@pytest.mark.parametrize("what", list(SILENT))
def test_a_column_that_says_nothing_is_named(
    what: str, rows_at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(column_check, "_ROWS_AT_ONCE", rows_at_once)
    name, column, says = SILENT[what]
    warnings = warnings_of(tmp_path, **{name: column})
    assert warnings
    assert all(f"column '{name}'" in warning and says in warning for warning in warnings)


def test_only_training_rows_count(tmp_path: Path) -> None:
    split = examples_table(ROWS)["split"].to_pylist()
    only_in_training = pa.array([7 if s == "train" else k % 5 for k, s in enumerate(split)])
    only_elsewhere = pa.array([k % 5 if s == "train" else 7 for k, s in enumerate(split)])
    assert warnings_of(tmp_path, item_id=only_in_training)
    assert not warnings_of(tmp_path, item_id=only_elsewhere)


def test_values_that_the_vocabulary_does_not_know_are_told_from_missing_ones(tmp_path: Path) -> None:
    examples, schema = write(tmp_path)
    text = schema.read_text().replace("name: item_id, kind: categorical, dtype: int64, hash: 20", "@")
    assert "@" in text
    schema.write_text(
        text.replace("@", "name: item_id, kind: categorical, dtype: int64, vocabulary: [901, 902]")
    )
    warnings = silent_columns(load_examples(examples, load_schema(schema)))
    assert any(
        "column 'item_id': no training row has a value that the vocabulary knows" in w for w in warnings
    )
