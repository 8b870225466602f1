from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankd_contract.schema import Entity
from rankd_contract.schema_file import parse_schema
from rankd_training.data.row_files import BATCH_ROWS
from rankd_training.data.splits import SplitPlan
from rankd_training.errors import ExamplesError
from rankd_training.examples.examples import load_examples
from tests.training.examples.loaded import load, repeated
from tests.training.fields import MIXED, mixed_schema
from tests.training.tables import examples_table, with_column, with_value, write


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


def test_rows_that_are_nobodys_are_not_one_users(tmp_path: Path) -> None:
    users = [None if k % 3 == 0 else k % 7 for k in range(1200)]
    codes = load(tmp_path, with_column(examples_table(), "user_id", users)).group_n
    nobodys = codes[::3]
    assert len(set(nobodys.tolist())) == len(nobodys)
    assert len(set(codes.tolist())) == len(nobodys) + 7
    again = load(tmp_path, with_column(examples_table(), "user_id", users)).group_n
    assert np.array_equal(codes, again)


def test_ids_stored_as_floats_read_as_the_ids_they_are(tmp_path: Path) -> None:
    table = examples_table()
    holes = [None if k % 9 == 0 else i for k, i in enumerate(table["user_id"].to_pylist())]
    whole = load(tmp_path, with_column(table, "user_id", holes))
    floats = load(tmp_path, with_column(table, "user_id", [None if i is None else float(i) for i in holes]))
    assert np.array_equal(whole.group_n, floats.group_n)
    assert np.array_equal(whole.blocks[Entity.USER].ids, floats.blocks[Entity.USER].ids)
    broken = refused(tmp_path, with_column(table, "item_id", [1.0] * 700 + [1.5] * 500))
    assert (broken.column, broken.row) == ("item_id", 700)
    assert "field 'item_id' expects a whole number, got a fraction; round the column, or make" in str(broken)


def test_a_field_that_reads_a_label_is_refused_where_a_model_is_trained(tmp_path: Path) -> None:
    table = examples_table()
    path = tmp_path / "examples.parquet"
    pq.write_table(table, path)
    told = parse_schema(MIXED.replace("{name: age, kind", "{name: age, source: clicked, kind"))
    with pytest.raises(ExamplesError, match="is the label of task 'click', and field 'age' reads it"):
        load_examples(path, told)
    assert len(load_examples(path, told, to_train=False)) == 1200, "what was trained is still judged"


def test_several_row_groups_read_as_one(tmp_path: Path) -> None:
    table = examples_table()
    whole = load(tmp_path, table)
    pq.write_table(table, tmp_path / "pieces.parquet", row_group_size=100)
    pieces = load_examples(tmp_path / "pieces.parquet", mixed_schema())
    for entity in Entity:
        assert np.array_equal(whole.blocks[entity].ids, pieces.blocks[entity].ids)


@pytest.mark.parametrize("column", ["recent", "clicked", "user_id"])
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
    ("value", "said"), [(None, "got null"), (float("nan"), "got NaN"), (2.0, "got 2"), (-1.0, "got -1")]
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
    assert "got a column of string" in str(error)


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


@pytest.mark.parametrize(
    ("value", "said"),
    [("validation", "did you mean 'valid'?"), ("holdout", "got 'holdout'"), (None, "got None")],
)
def test_an_unknown_split_is_named_with_its_row(tmp_path: Path, value: str | None, said: str) -> None:
    error = refused(tmp_path, with_value(examples_table(), "split", 3, value))
    assert (error.column, error.row) == ("split", 3)
    assert str(error).endswith(said)


def test_a_file_without_rows_or_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    assert "no rows" in str(refused(tmp_path, examples_table().slice(0, 0)))
    (tmp_path / "text.parquet").write_text("user_id,item_id\n")
    for name in ("text.parquet", "absent.parquet"):
        with pytest.raises(ExamplesError, match=name):
            load_examples(tmp_path / name, mixed_schema())


def test_a_misspelt_column_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    table = examples_table().rename_columns({"clicked": "click_ed"})
    assert "did you mean 'click_ed'?" in str(refused(tmp_path, table))


def test_a_column_type_is_refused_before_any_row_and_without_a_row(tmp_path: Path) -> None:
    texts = with_column(examples_table(), "item_id", ["1"] * 1200)
    error = refused(tmp_path, texts)
    assert (error.column, error.row) == ("item_id", None)
    assert "expects a column of int64, got string; cast it to int64, or make the field's dtype" in str(error)


def test_what_to_cast_lists_and_large_numbers_to_is_said(tmp_path: Path) -> None:
    table = examples_table()
    recent = with_column(table, "recent", [["1", "2"]] * 1200)
    assert "expects lists of int64, got lists of string; cast its values to int64" in str(
        refused(tmp_path, recent)
    )
    at = table.column_names.index("item_id")
    unsigned = table.set_column(at, "item_id", table["item_id"].cast(pa.uint64()))
    assert "got uint64; its numbers may be too large for int64: cast it to string" in str(
        refused(tmp_path, unsigned)
    )


def test_an_infinite_number_among_whole_ones_is_named_as_such(tmp_path: Path) -> None:
    ages = [float("inf") if k == 5 else 30.0 for k in range(1200)]
    error = refused(tmp_path, with_column(examples_table(), "age", ages))
    assert (error.column, error.row) == ("age", 5)
    assert "expects a whole number, got an infinite number" in str(error)


def test_a_group_or_a_split_of_another_type_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, with_column(examples_table(), "user_id", [1.5] * 1200))
    assert error.column == "user_id"
    error = refused(tmp_path, with_column(examples_table(), "split", [1] * 1200))
    assert "got a column of int64" in str(error)


@pytest.mark.parametrize(("column", "value"), [("clicked", 7), ("split", "validate"), ("income", np.inf)])
def test_rows_are_counted_over_the_whole_file(tmp_path: Path, column: str, value: Any) -> None:
    table = repeated(20)
    row = BATCH_ROWS + 1000
    assert row < table.num_rows
    error = refused(tmp_path, with_value(table, column, row, value))
    assert (error.column, error.row) == (column, row)


def write_parts(folder: Path, *names: str) -> None:
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        part = examples_table().slice(400 * k, 400)
        pq.write_table(part, folder / name)


def test_a_folder_of_files_reads_as_one_in_the_order_of_their_names(tmp_path: Path) -> None:
    whole = load(tmp_path)
    folder = tmp_path / "parts"
    write_parts(folder, "part-0.parquet", "part-1.parquet", "part-2.pq")
    (folder / "_SUCCESS").touch()
    parts = load_examples(folder, mixed_schema())
    for entity in Entity:
        assert np.array_equal(whole.blocks[entity].ids, parts.blocks[entity].ids)
    assert np.array_equal(whole.label_nT, parts.label_nT)
    assert np.array_equal(whole.group_n, parts.group_n)
    assert {s: rows.tolist() for s, rows in parts.rows.items()} == {
        s: rows.tolist() for s, rows in whole.rows.items()
    }
    assert parts.sha256 != whole.sha256


def test_an_error_in_a_folder_names_the_file_and_its_own_row(tmp_path: Path) -> None:
    write_parts(tmp_path, "a.parquet", "b.parquet", "c.parquet")
    broken = with_value(examples_table().slice(400, 400), "clicked", 9, 3)
    pq.write_table(broken, tmp_path / "b.parquet")
    with pytest.raises(ExamplesError) as caught:
        load_examples(tmp_path, mixed_schema())
    assert (caught.value.path, caught.value.row) == (tmp_path / "b.parquet", 9)
    pq.write_table(broken.drop_columns("tags"), tmp_path / "c.parquet")
    with pytest.raises(ExamplesError, match=r"c\.parquet, column 'tags': no such column"):
        load_examples(tmp_path, mixed_schema())


def test_a_folder_without_examples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExamplesError, match=r"holds no file that ends in \.parquet"):
        load_examples(tmp_path, mixed_schema())
    (tmp_path / "rows.csv").touch()
    with pytest.raises(ExamplesError, match=r"rows\.csv.*neither Parquet"):
        load_examples(tmp_path / "rows.csv", mixed_schema())


@pytest.mark.parametrize(
    "names",
    [
        ("train.parquet", "valid.parquet", "test.parquet"),
        ("train/part-0.parquet", "val/part-0.parquet", "test/part-0.parquet"),
    ],
)
def test_the_names_of_files_say_the_split_where_no_column_does(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    write_parts(tmp_path, *names)
    for name in names:
        table = pq.read_table(tmp_path / name)
        pq.write_table(table.drop_columns("split"), tmp_path / name)
    examples = load_examples(tmp_path, mixed_schema())
    assert {name: len(rows) for name, rows in examples.rows.items()} == dict.fromkeys(
        ("train", "valid", "test"), 400
    )
    # Read in the order of their names: test comes first.
    assert examples.rows["test"].tolist() == list(range(400))
    assert examples.split_by == "the files' names"


def test_rows_that_say_nothing_are_dealt_out_by_a_seeded_hash(tmp_path: Path) -> None:
    table = examples_table(6000).drop_columns("split")
    examples = load(tmp_path, table)
    assert "80/10/10 by a hash" in examples.split_by
    shares = {name: len(rows) / 6000 for name, rows in examples.rows.items()}
    assert shares == pytest.approx({"train": 0.8, "valid": 0.1, "test": 0.1}, abs=0.015)
    again = load(tmp_path, table, split=SplitPlan.parse("80/10/10"))
    assert again.rows["test"].tolist() == examples.rows["test"].tolist()
    other = load(tmp_path, table, split=SplitPlan.parse("80/10/10", seed=1))
    assert other.rows["test"].tolist() != examples.rows["test"].tolist()
    half = load(tmp_path, table, split=SplitPlan.parse("2/1/1"))
    assert len(half.rows["train"]) / 6000 == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.date32(), pa.timestamp("ms")], ids=str)
def test_a_split_by_time_takes_the_latest_rows_whatever_its_type(tmp_path: Path, kind: Any) -> None:
    table = examples_table()
    days = np.random.default_rng(5).permutation(1200)
    time: Any = pa.array(days.astype(np.int32))
    time = time.cast(pa.date32()).cast(kind) if pa.types.is_timestamp(kind) else time.cast(kind)
    plan = SplitPlan.parse("70/20/10", time_column="when")
    examples = load(tmp_path, table.append_column("when", time), split=plan)
    assert sorted(days[examples.rows["test"]]) == list(range(1080, 1200))
    assert sorted(days[examples.rows["valid"]]) == list(range(840, 1080))
    assert examples.split_by == "70/20/10 by time, column 'when'"


def test_a_time_to_split_by_that_is_missing_or_null_is_named(tmp_path: Path) -> None:
    plan = SplitPlan.parse("80/10/10", time_column="when")
    path, _ = write(tmp_path)
    with pytest.raises(ExamplesError, match=r"column 'when': no such column \(the time to split by\)"):
        load_examples(path, mixed_schema(), split=plan)
    when = [None if k == 11 else k for k in range(1200)]
    for values, said in ((when, "row 11.*got null"), (["noon"] * 1200, "got string")):
        write(tmp_path, examples_table().append_column("when", pa.array(values)))
        with pytest.raises(ExamplesError, match=said):
            load_examples(path, mixed_schema(), split=plan)


LIBFM = """
rankd_schema: 1
name: libfm
views:
  - name: row
    entity: item
    key: row
    fields:
      - {name: user, source: id_1, kind: categorical, dtype: int64, hash: 50}
      - {name: item, source: id_2, kind: categorical, dtype: int64, hash: 50}
      - {name: hour, source: value_3, kind: numeric, dtype: float32, default: 0.0}
tasks: [{name: click, label: label}]
"""


def test_libfm_text_reads_as_a_table_of_positions(tmp_path: Path) -> None:
    rows = [f"{1 if k % 3 else -1} {k % 7}:1 {7 + k % 5}:1 12:{k / 100}" for k in range(600)]
    for name, part in (("train", rows[:400]), ("valid", rows[400:500]), ("test", rows[500:])):
        (tmp_path / f"{name}.libfm").write_text("\n".join(part) + "\n")
    schema = parse_schema(LIBFM)
    examples = load_examples(tmp_path, schema)
    order = [*range(500, 600), *range(400), *range(400, 500)]
    assert examples.label_nT[:, 0].tolist() == [float(k % 3 > 0) for k in order]
    assert examples.blocks[Entity.ITEM].values[:, 0] == pytest.approx([k / 100 for k in order])
    pq.write_table(
        pa.table(
            {
                "id_1": [k % 7 for k in order],
                "id_2": [7 + k % 5 for k in order],
                "value_3": [k / 100 for k in order],
                "label": [int(k % 3 > 0) for k in order],
            }
        ),
        tmp_path / "same.parquet",
    )
    same = load_examples(tmp_path / "same.parquet", schema)
    assert np.array_equal(examples.blocks[Entity.ITEM].ids, same.blocks[Entity.ITEM].ids)
    assert len(set(examples.group_n.tolist())) == 600, "rows without users are each their own group"


def test_a_time_may_be_a_timestamp_where_a_field_derives_from_it(tmp_path: Path) -> None:
    whole = load(tmp_path)
    for unit in ("s", "ms", "us", "ns"):
        stamps = pa.array(np.arange(1200) * 3600).cast(pa.timestamp("s")).cast(pa.timestamp(unit, "UTC"))
        table = examples_table()
        given = load(tmp_path, table.set_column(table.column_names.index("at"), "at", stamps))
        assert np.array_equal(given.blocks[Entity.CONTEXT].ids, whole.blocks[Entity.CONTEXT].ids)
