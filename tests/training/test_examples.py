from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankd_contract.schema import Entity
from rankd_training.errors import ExamplesError
from rankd_training.examples import Examples, load_examples
from tests.training.fields import mixed_schema
from tests.training.tables import examples_table, with_column, with_value, write


def load(folder: Path, table: pa.Table | None = None, **arguments: Any) -> Examples:
    path, _ = write(folder, table)
    return load_examples(path, mixed_schema(), **arguments)


def refused(folder: Path, table: pa.Table) -> ExamplesError:
    with pytest.raises(ExamplesError) as caught:
        load(folder, table)
    assert str(folder / "examples.parquet") in str(caught.value)
    return caught.value


def test_rows_are_encoded_through_the_contract_with_defaults_filled_in(tmp_path: Path) -> None:
    examples = load(tmp_path)
    assert len(examples) == 1200
    blocks = examples.blocks
    assert {entity: (b.ids.shape[1], b.values.shape[1]) for entity, b in blocks.items()} == {
        Entity.USER: (6, 1),
        Entity.ITEM: (4, 2),
        Entity.CONTEXT: (1, 0),
    }
    assert all(np.isfinite(block.values).all() for block in blocks.values())
    assert blocks[Entity.ITEM].values[0, 1] == 1.0  # the default of `weight`, which is null in row 0
    assert blocks[Entity.USER].ids[0, 5] == 0  # `age` has no default, so missing stays missing
    assert blocks[Entity.CONTEXT].ids[:25, 0].tolist() == [2 + k % 24 for k in range(25)]


def test_labels_come_in_the_order_of_the_tasks_and_splits_in_file_order(tmp_path: Path) -> None:
    table = examples_table()
    examples = load(tmp_path, table)
    assert examples.label_nT.dtype == np.float32
    assert examples.label_nT[:, 0].tolist() == table["clicked"].to_pylist()
    assert examples.label_nT[:, 1].tolist() == [float(v or 0) for v in table["bought"].to_pylist()]
    split = np.asarray(table["split"].to_pylist())
    assert {name: rows.tolist() for name, rows in examples.rows.items()} == {
        name: np.flatnonzero(split == name).tolist() for name in ("train", "valid", "test")
    }
    assert examples.sha256 == hashlib.sha256((tmp_path / "examples.parquet").read_bytes()).hexdigest()


def test_rows_are_grouped_by_the_user_unless_told_otherwise(tmp_path: Path) -> None:
    table = examples_table()
    for column, arguments in (("user_id", {}), ("item_id", {"group_column": "item_id"})):
        codes = load(tmp_path, table, **arguments).group_n
        pairs = set(zip(codes.tolist(), table[column].to_pylist(), strict=True))
        assert len(pairs) == len(set(codes.tolist())) == len(set(table[column].to_pylist()))


def test_several_row_groups_read_as_one(tmp_path: Path) -> None:
    table = examples_table()
    whole = load(tmp_path, table)
    pq.write_table(table, tmp_path / "pieces.parquet", row_group_size=100)
    pieces = load_examples(tmp_path / "pieces.parquet", mixed_schema())
    for entity in Entity:
        assert np.array_equal(whole.blocks[entity].ids, pieces.blocks[entity].ids)


@pytest.mark.parametrize("column", ["recent", "clicked", "split", "user_id"])
def test_a_missing_column_is_named_with_what_it_is_for(tmp_path: Path, column: str) -> None:
    error = refused(tmp_path, examples_table().drop_columns(column))
    assert error.column == column
    assert "no such column" in str(error)
    assert "the file has" in str(error)


def test_a_column_of_the_wrong_type_is_named_with_what_was_expected(tmp_path: Path) -> None:
    error = refused(tmp_path, with_column(examples_table(), "item_id", ["x"] * 1200))
    assert error.column == "item_id"
    assert "int64" in str(error)


def test_an_infinite_number_is_named_with_its_row(tmp_path: Path) -> None:
    error = refused(tmp_path, with_value(examples_table(), "income", 17, float("inf")))
    assert (error.column, error.row) == ("income", 17)


@pytest.mark.parametrize(
    ("value", "said"), [(None, "null or NaN"), (float("nan"), "null or NaN"), (2.0, "got 2")]
)
def test_a_label_that_is_not_0_or_1_is_named_with_its_row(tmp_path: Path, value: Any, said: str) -> None:
    labels = examples_table()["clicked"].cast(pa.float64())
    table = with_column(examples_table(), "clicked", labels.to_pylist())
    error = refused(tmp_path, with_value(table, "clicked", 5, value))
    assert (error.column, error.row) == ("clicked", 5)
    assert said in str(error)


def test_a_label_that_is_no_number_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, with_column(examples_table(), "clicked", ["yes"] * 1200))
    assert error.column == "clicked"
    assert "got string" in str(error)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_label_with_one_class_is_refused(tmp_path: Path, split: str) -> None:
    table = examples_table()
    splits = table["split"].to_pylist()
    labels = [0 if s == split else v for s, v in zip(splits, table["clicked"].to_pylist(), strict=True)]
    error = refused(tmp_path, with_column(table, "clicked", labels))
    assert error.column == "clicked"
    assert f"is 0 in every row of {split}" in str(error)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    splits = ["train" if s == "test" else s for s in examples_table()["split"].to_pylist()]
    error = refused(tmp_path, with_column(examples_table(), "split", splits))
    assert error.column == "split"
    assert "'test'" in str(error)


@pytest.mark.parametrize("value", ["validation", None])
def test_an_unknown_split_is_named_with_its_row(tmp_path: Path, value: str | None) -> None:
    error = refused(tmp_path, with_value(examples_table(), "split", 3, value))
    assert (error.column, error.row) == ("split", 3)


def test_a_file_without_rows_or_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    assert "no rows" in str(refused(tmp_path, examples_table().slice(0, 0)))
    (tmp_path / "text.parquet").write_text("user_id,item_id\n")
    for name in ("text.parquet", "absent.parquet"):
        with pytest.raises(ExamplesError, match=name):
            load_examples(tmp_path / name, mixed_schema())
