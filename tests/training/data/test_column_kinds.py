from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankd_contract.schema import Entity, Kind, TransformKind
from rankd_contract.schema_file import parse_schema
from rankd_training.data.schema_proposal import Roles, propose_schema
from rankd_training.errors import ExamplesError
from rankd_training.recipes import ctr
from rankd_training.settings import TrainSettings
from tests.training.data.interactions import N, interactions, proposal, proposed, with_columns


def test_entries_of_libsvm_lines_are_ids_by_position_or_one_list(tmp_path: Path) -> None:
    path = tmp_path / "rows.libfm"
    lines = [f"{k % 2} {k % 50}:1 {100 + k % 30}:1 {200}:{k / 7:.2f}" for k in range(300)]
    path.write_text("\n".join(lines), encoding="utf-8")
    fields = parse_schema(propose_schema(path, Roles(), name="rows").text).fields
    assert {name: field.kind for name, field in fields.items()} == {
        "id_1": Kind.CATEGORICAL,
        "id_2": Kind.CATEGORICAL,
        "value_3": Kind.NUMERIC,
    }
    path.write_text("\n".join([*lines, "1 3:1"]), encoding="utf-8")
    fields = parse_schema(propose_schema(path, Roles(), name="rows").text).fields
    assert {name: field.kind for name, field in fields.items()} == {"ids": Kind.MULTI_VALUE}


def test_whole_numbers_of_few_rows_each_are_measures(tmp_path: Path) -> None:
    rows = np.arange(N)
    table = with_columns(stage=rows % 40, grade=rows % 7, age=pa.array([None, *(rows[1:] % 150)]))
    kinds = {name: field.kind for name, field in proposed(tmp_path, table)[1].fields.items()}
    assert kinds["stage"] is Kind.NUMERIC
    assert kinds["age"] is Kind.NUMERIC
    assert kinds["grade"] is Kind.CATEGORICAL, "so few may be names"
    twice = proposed(tmp_path, pa.concat_tables([table, table]))[1].fields
    assert twice["stage"].kind is Kind.CATEGORICAL, "a hundred rows tell what each is worth"
    assert twice["age"].kind is Kind.NUMERIC


def test_large_whole_numbers_close_together_are_names(tmp_path: Path) -> None:
    table = with_columns(serial=2**60 + np.arange(N) % 60, year=1_000_000_000 + np.arange(N) % 60)
    fields = proposed(tmp_path, table)[1].fields
    assert [fields[name].kind for name in ("serial", "year")] == [Kind.CATEGORICAL] * 2


def test_a_half_float_is_a_measure_and_is_looked_at_without_a_warning(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=N).astype(np.float16)
    assert proposed(tmp_path, with_columns(half=values))[1].fields["half"].kind is Kind.NUMERIC


def test_a_column_that_some_files_lack_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    pq.write_table(interactions(), folder / "a.parquet")
    pq.write_table(with_columns(extra=np.arange(N) % 5), folder / "b.parquet")
    found = propose_schema(folder, Roles(), name="parts")
    assert "extra: not in a.parquet, so no field; write it into all files" in found.notes


def test_what_names_a_row_or_is_broken_is_no_field_and_it_is_said(tmp_path: Path) -> None:
    found = proposal(
        tmp_path,
        with_columns(
            impression_id=[f"i-{k}" for k in range(N)],
            order_id=np.arange(N) * 3,
            amount=np.random.default_rng(1).permutation(N) * 7,
            income=[f"{k / 7:.2f}" for k in range(N)],
            postcode=[f"{k % 700:05}" for k in range(N)],
            ratio=[float("inf") if k % 50 == 0 else k / 7 for k in range(N)],
            shown=[f"2024-01-{1 + k % 28:02} 12:00:00" for k in range(N)],
        ),
    )
    fields = {field.source for field in parse_schema(found.text).fields.values()}
    assert not fields & {"impression_id", "order_id", "shown", "ratio", "income"}
    assert "amount" in fields, "a number may be another one in each row"
    assert "postcode" in fields, "digits may name something"
    assert "impression_id, order_id: another value in each row, so no field" in found.notes
    assert any(
        note.startswith("income: left out: numbers as text; store it as float64") for note in found.notes
    )
    assert "postcode: text of numbers, taken for names; store it as a number if it counts or measures" in (
        found.notes
    )
    assert "# ratio: infinite, or beyond 32-bit floats, in some rows" in found.text
    assert "# shown: a time as text; store it as a timestamp" in found.text


def test_ids_with_nulls_that_were_stored_as_floats_are_read_as_the_ids_they_are(tmp_path: Path) -> None:
    """As pandas stores them; and the schema trains."""
    user = interactions()["user_id"].to_pylist()
    as_floats = with_columns(
        store_no=[None if k % 5 == 0 else float(k % 600) for k in range(N)],
        visits=[None if k % 5 == 0 else float(k % 600) for k in range(N)],
    )
    holes = pa.array([None if k % 9 == 0 else i for k, i in enumerate(user)], pa.float64())
    as_floats = as_floats.set_column(as_floats.column_names.index("user_id"), "user_id", holes)
    found = proposal(tmp_path, as_floats)
    schema = parse_schema(found.text)
    assert [view.key for view in schema.stored_views] == ["user_id", "item_id"]
    assert schema.fields["country"] in schema.of(Entity.USER)[0].fields, "a user is still told apart"
    assert schema.fields["store_no"].kind is Kind.CATEGORICAL
    assert schema.fields["visits"].kind is Kind.NUMERIC
    assert "# visits: a measure, of whole numbers; if they name things" in found.text
    assert "user_id: stored as floats, all of them whole: read as ids" in found.notes
    (tmp_path / "s.yaml").write_text(found.text)
    told = TrainSettings(
        tmp_path / "rows.parquet", tmp_path / "s.yaml", tmp_path / "run", model="lr", epochs=1
    )
    assert ctr.train(told).record.rows["train"] > 0


def test_only_what_can_be_an_id_is_suggested_as_one(tmp_path: Path) -> None:
    table = interactions().drop_columns(["user_id", "recent"])
    table = table.append_column("area_code", pa.array([0.5 + k % 9 for k in range(N)]))
    table = table.append_column(
        "shop_id", pa.array([None if k % 9 == 0 else float(k % 90) for k in range(N)])
    )
    found = proposal(tmp_path, table)
    assert found.notes[0].endswith("say --user COLUMN, perhaps shop_id")
    assert parse_schema(proposal(tmp_path, table, user="shop_id").text).stored_views[0].key == "shop_id"


def test_ids_that_are_none_are_refused_with_what_to_do(tmp_path: Path) -> None:
    for broken, problem in (
        ([0.5 if k == 5 else float(k % 300) for k in range(N)], "and not all of it is whole"),
        ([2.0**53 + 2 * (k % 300) for k in range(N)], "or small enough to be exact; cast it to int64"),
    ):
        with pytest.raises(ExamplesError, match=f"column 'shop': an id is .* of double .*{problem}"):
            proposal(tmp_path, with_columns(shop=broken), item="shop")
    with pytest.raises(ExamplesError, match="column 'country': is named as the user's id and as the item's"):
        proposed(tmp_path, user="country", item="country")
    found = proposal(tmp_path, ignore=("user_id",))
    assert len(parse_schema(found.text).views) == 1, "what is ignored is nobody's id either"
    found = proposal(tmp_path, with_columns(member_id=np.arange(N) % 50), item="user_id")
    assert [view.key for view in parse_schema(found.text).stored_views] == ["member_id", "user_id"]


def test_numbers_as_text_are_told_from_names_though_some_say_nothing(tmp_path: Path) -> None:
    text = [f"{k % 700 + 0.5}" for k in range(N)]
    mostly = with_columns(amount=["n/a" if k % 5 == 0 else one for k, one in enumerate(text)])
    assert "amount: left out: numbers as text" in " ".join(proposal(tmp_path, mostly).notes)
    codes = with_columns(amount=["V57" if k % 50 == 0 else one for k, one in enumerate(text)])
    assert "amount" in parse_schema(proposal(tmp_path, codes).text).fields, "codes of diseases are such"
    named = proposal(tmp_path, with_columns(diag_code=text))
    assert "diag_code" in parse_schema(named.text).fields
    few = proposal(tmp_path, with_columns(version=[f"{k % 9}.{k % 2}" for k in range(N)]))
    assert "version" in parse_schema(few.text).fields
    assert "version: text of numbers, taken for names" in " ".join(few.notes)
    versions = with_columns(version=[f"{k % 3}.{k % 7}.{k % 5}" for k in range(N)])
    assert "version" in parse_schema(proposal(tmp_path, versions).text).fields


def test_one_wild_value_does_not_spoil_the_scale_of_a_measure(tmp_path: Path) -> None:
    usual = np.random.default_rng(1).normal(size=N)
    usual[1000:1010] = -1e30
    found = proposal(tmp_path, with_columns(reading=usual))
    field = parse_schema(found.text).fields["reading"]
    assert [step.kind for step in field.transforms] == [TransformKind.BUCKETIZE]
    assert np.abs(field.transforms[0].edges).max() < 10
    assert "# reading: a measure with outliers (-1e+30 to " in found.text


def test_row_numbers_that_pandas_wrote_are_left_out_and_named(tmp_path: Path) -> None:
    table = interactions().append_column("__index_level_0__", pa.array(np.arange(N)))
    found = proposal(tmp_path, table.append_column("Unnamed: 0", pa.array(np.arange(N))))
    assert not [name for name in parse_schema(found.text).fields if "index" in name or "Unnamed" in name]
    assert "__index_level_0__: left out: a row number that pandas wrote" in " ".join(found.notes)


def test_an_id_that_is_null_throughout_is_refused_as_such(tmp_path: Path) -> None:
    with pytest.raises(ExamplesError, match=r"column 'shop': an id is .* null in every row looked at"):
        proposal(tmp_path, with_columns(shop=pa.nulls(N, pa.float64())), item="shop")


def test_a_named_index_that_names_rows_is_left_out_and_one_that_names_users_is_not(tmp_path: Path) -> None:
    table = interactions().append_column("impression", pa.array(np.arange(N)))
    noted = {"index_columns": ["impression", "user_id"], "columns": [], "column_indexes": []}
    table = table.replace_schema_metadata({b"pandas": json.dumps(noted).encode()})
    found = proposal(tmp_path, table)
    fields = parse_schema(found.text).fields
    assert "impression" not in fields
    assert "user_id" in fields
    assert "impression: left out: a row number that pandas wrote" in " ".join(found.notes)
