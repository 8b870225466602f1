from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankd_contract.schema import Entity, FeatureSchema, Kind, TransformKind
from rankd_contract.schema_file import parse_schema
from rankd_training.data import sampled_rows
from rankd_training.data.schema_proposal import Roles, SchemaProposal, propose_schema
from rankd_training.errors import ExamplesError
from rankd_training.recipes import ctr
from rankd_training.settings import TrainSettings

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


def test_every_column_is_a_field_of_its_kind_or_says_why_not(tmp_path: Path) -> None:
    text, schema = proposed(tmp_path)
    fields = schema.fields
    assert fields["user_id"].hash_buckets == 2048
    assert fields["country"].vocabulary == ("de", "es", "fr", "it")
    assert fields["member"].vocabulary == (False, True)
    assert fields["brand"].hash_buckets == 2048
    assert (fields["genres"].kind, fields["genres"].max_length) == (Kind.MULTI_VALUE, 3)
    assert [t.kind for t in fields["price"].transforms] == [TransformKind.LOG1P, TransformKind.STANDARD]
    assert [t.kind for t in fields["temperature"].transforms] == [TransformKind.STANDARD]
    assert (fields["recent"].kind, fields["recent"].shares) == (Kind.SEQUENCE, "item_id")
    assert fields["f_odd_name_"].source == "odd name!"
    assert fields["level"].transforms[-1].edges == (2.0, 5.0)
    assert fields["level"].default is None, "what is missing is an id of its own"
    for why in (
        "# broken?: the same in every row looked at (x)",
        "# nothing: null in every row looked at, null in 100.0%",
        "# where: no field reads columns of type struct<x: int64>; cast it",
        "a measure with a long tail, null in ",
        "# brand: text, 280 values, hashed into 2,048 buckets",
    ):
        assert why in text
    assert [task.label for task in schema.tasks] == ["click"]


def test_a_value_that_fills_most_rows_has_a_bucket_of_its_own(tmp_path: Path) -> None:
    _, schema = proposed(tmp_path)
    bids = interactions()["bids"].to_numpy()
    edges = schema.fields["bids"].transforms[-1].edges
    assert edges[0] == bids[bids > 0].min()
    counts = np.bincount(np.searchsorted(edges, bids, side="right"))
    assert counts[0] == (bids == 0).sum()
    assert counts[1:].max() < 3 * counts[1:].min()


def test_columns_go_to_the_side_they_follow_from(tmp_path: Path) -> None:
    _, schema = proposed(tmp_path)
    of = {e: {f.name for v in schema.of(e) for f in v.fields} for e in Entity}
    assert of[Entity.USER] == {"user_id", "country", "member", "recent"}
    assert of[Entity.ITEM] == {"item_id", "brand", "genres"}
    assert {"timestamp_hour", "timestamp_day", "seen_at_hour", "price"} <= of[Entity.CONTEXT]


def test_without_user_and_item_the_rows_are_one_view_with_their_key(tmp_path: Path) -> None:
    table = interactions().drop_columns(["user_id", "recent"])
    _, schema = proposed(tmp_path, table)
    (view,) = schema.views
    assert (view.entity, view.key) == (Entity.ITEM, "timestamp")
    text, schema = proposed(tmp_path, table.drop_columns(["timestamp", "seen_at"]))
    assert schema.views[0].key == "id"
    assert "No column tells the rows apart" in text


def test_what_a_person_says_goes_before_what_is_guessed(tmp_path: Path) -> None:
    table = interactions().append_column("bought", pa.array(np.arange(N) % 2))
    _, schema = proposed(tmp_path, table, labels=("bought",), user="country", ignore=("click", "bids"))
    assert [task.label for task in schema.tasks] == ["bought"]
    assert schema.of(Entity.USER)[0].key == "country"
    assert not {"click", "bids"} & set(schema.fields)


def test_what_may_be_a_second_label_is_no_field_and_is_named(tmp_path: Path) -> None:
    found = proposal(tmp_path, shopping())
    fields = parse_schema(found.text).fields
    assert not {"ordered", "shown_first"} & fields.keys()
    assert "member" in fields, "what is its user's happens to nobody"
    assert "#      - {name: ordered, kind: categorical, dtype: int64, vocabulary: [0, 1]}" in found.text
    assert found.notes[1].startswith("label clicked: its name")
    assert (
        "ordered: may be a label: give --label ordered, or --ignore ordered; left out of the fields"
        in found.notes
    )
    assert "shown_first" in found.notes[3]
    both = proposal(tmp_path, shopping(), labels=("clicked", "ordered"), ignore=("shown_first",))
    assert [task.label for task in parse_schema(both.text).tasks] == ["clicked", "ordered"]
    assert both.notes[1:3] == ("label clicked: named by --label", "label ordered: named by --label")
    assert all(": left out: " in note for note in both.notes[4:])


def test_rows_that_are_nobodys_keep_their_flags_but_for_what_is_called_an_outcome(tmp_path: Path) -> None:
    found = proposal(tmp_path, shopping().drop_columns(["user_id", "recent"]))
    fields = parse_schema(found.text).fields
    assert "ordered" not in fields
    assert {"shown_first", "member"} <= fields.keys()
    assert any(note.startswith("member, shown_first: 0 or 1 too, and fields") for note in found.notes)


@pytest.mark.parametrize(
    ("label", "stray"),
    [("level", "has nulls"), ("bids", r"has \d{3,}"), ("brand", "has values of type string")],
)
def test_a_label_that_is_not_0_or_1_is_refused(tmp_path: Path, label: str, stray: str) -> None:
    with pytest.raises(ExamplesError, match=f"column '{label}': a label is 0 or 1 .*{stray}") as refused:
        proposal(tmp_path, labels=(label,))
    assert "columns of 0 and 1 are member, click" in str(refused.value)


def test_stored_views_say_which_column_is_their_time_and_no_time_of_a_user_is_it(tmp_path: Path) -> None:
    _, schema = proposed(tmp_path, shopping())
    (user,), (item,) = schema.of(Entity.USER), schema.of(Entity.ITEM)
    assert "registered_at_hour" in {field.name for field in user.fields}
    assert (user.event_time, item.event_time) == ("timestamp", "timestamp")
    text, schema = proposed(tmp_path, shopping().drop_columns(["timestamp"]))
    assert schema.of(Entity.USER)[0].event_time == "event_time"
    assert text.count("    event_time: event_time\n") == 2


def test_a_label_nobody_named_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ExamplesError, match="columns of 0 and 1 are member, win; say it with --label"):
        proposed(tmp_path, interactions().rename_columns({"click": "win"}))
    with pytest.raises(ExamplesError, match="did you mean 'click'"):
        proposed(tmp_path, labels=("clicks",))


def test_a_long_file_is_sampled_all_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampled_rows, "SAMPLE_ROWS", 40_000)
    table = pa.table({"x": np.arange(100_000) // 5000, "label": np.arange(100_000) % 2})
    text, schema = proposed(tmp_path, table)
    assert "rows.parquet has 100,000 rows" in text
    vocabulary = schema.fields["x"].vocabulary
    assert vocabulary is not None
    assert max(map(int, vocabulary)) > 15


@pytest.mark.parametrize("model", ["mlcc", "lr"])
def test_a_proposal_trains_as_it_is(tmp_path: Path, model: str) -> None:
    text, _ = proposed(tmp_path)
    (tmp_path / "schema.yaml").write_text(text)
    settings = TrainSettings(
        tmp_path / "rows.parquet", tmp_path / "schema.yaml", tmp_path / "run", model, epochs=2
    )
    result = ctr.train(settings)
    assert "80/10/10 by a hash" in result.record.split_by
    assert result.metrics["train"]["click"].auc is not None


def test_users_and_items_are_told_by_what_people_call_them_and_it_is_said(tmp_path: Path) -> None:
    table = interactions().rename_columns({"user_id": "customer_id", "item_id": "Ad_Id"})
    found = proposal(tmp_path, table)
    assert [(v.entity, v.key) for v in parse_schema(found.text).views[:2]] == [
        (Entity.USER, "customer_id"),
        (Entity.ITEM, "Ad_Id"),
    ]
    assert "rows are of users (customer_id) and items (Ad_Id); else say --user and --item" in found.notes
    found = proposal(tmp_path, interactions().rename_columns({"item_id": "banner_id"}))
    assert len(parse_schema(found.text).views) == 1
    assert found.notes[0] == (
        "user_id is a user's id, and no column is called as an item's: say --item COLUMN, perhaps banner_id"
    )


def test_a_column_that_is_said_to_name_users_is_looked_up_whatever_it_is_called(tmp_path: Path) -> None:
    table = interactions().rename_columns({"user_id": "who", "item_id": "what"})
    fields = proposed(tmp_path, table, user="who", item="what")[1].fields
    assert {fields[name].kind for name in ("who", "what")} == {Kind.CATEGORICAL}
    assert fields["who"].hash_buckets == 2048
    assert fields["recent"].shares == "what"
    table = table.rename_columns({"who": "visitor", "what": "product"})
    assert [view.key for view in proposed(tmp_path, table)[1].stored_views] == ["visitor", "product"]


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


def test_decimals_are_measures_and_milliseconds_are_named(tmp_path: Path) -> None:
    table = interactions()
    price = pa.array([Decimal(k % 900) / 100 for k in range(N)], pa.decimal128(9, 2))
    table = table.set_column(table.column_names.index("price"), "price", price)
    milliseconds = pa.array(1_700_000_000_000 + 3_600_000 * np.arange(N))
    text, schema = proposed(tmp_path, table.append_column("clicked_at", milliseconds))
    assert schema.fields["price"].kind is Kind.NUMERIC
    assert "# clicked_at: a time in milliseconds" in text
    assert "clicked_at" not in {field.source for field in schema.fields.values()}


def with_columns(**more: Any) -> pa.Table:
    table = interactions()
    for name, values in more.items():
        table = table.append_column(name.replace("__", " "), pa.array(values))
    return table


def test_names_that_yaml_or_a_schema_could_misread_are_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    names = [
        "yes",
        "null",
        "1e3",
        "a b",
        "a/b",
        "a_b",
        "new\nline",
        "x" * 100,
        "x" * 101,
        "seen_at_hour",
        "- {",
    ]
    table = interactions().rename_columns({"click": "clicked?", "user_id": "user_id"})
    for name in names:
        table = table.append_column(name, pa.array(rng.integers(0, 5, N)))
    text, schema = proposed(tmp_path, table, labels=("clicked?",))
    assert {field.source for field in schema.fields.values()} >= {*names, "user_id", "seen_at"}
    assert [task.label for task in schema.tasks] == ["clicked?"]
    fields = {field.source: name for name, field in schema.fields.items()}
    assert (fields["yes"], fields["a_b"], fields["seen_at_hour"]) == ("yes", "a_b", "seen_at_hour")
    (tmp_path / "schema.yaml").write_text(text)
    ctr.train(
        TrainSettings(tmp_path / "rows.parquet", tmp_path / "schema.yaml", tmp_path / "run", "lr", epochs=1)
    )


def test_what_is_learned_from_the_rows_is_learned_from_training_rows_alone(tmp_path: Path) -> None:
    split = np.array(["train", "train", "valid", "test"])[np.arange(N) % 4]
    colour = np.where(split == "train", "red", np.where(split == "test", "blue", "green")).astype(object)
    colour[0] = "white"
    table = with_columns(split=split, colour=colour)
    assert proposed(tmp_path, table)[1].fields["colour"].vocabulary == ("red", "white")
    folder = tmp_path / "parts"
    folder.mkdir()
    for name in ("train", "valid", "test"):
        pq.write_table(table.filter(split == name).drop_columns("split"), folder / f"{name}.parquet")
    text = propose_schema(folder, Roles(), name="rows").text
    assert parse_schema(text).fields["colour"].vocabulary == ("red", "white")
    assert f"{N // 2:,} training rows; parts has {N:,} rows" in text


def test_a_missing_value_does_not_hide_whose_a_column_is(tmp_path: Path) -> None:
    table = interactions()
    user = table["user_id"].to_numpy()
    city = pa.array([None if k % 7 == 0 else f"city-{user[k] % 9}" for k in range(N)])
    height = pa.array(np.where(np.arange(N) % 7 == 0, np.nan, 150.5 + user % 40))  # as numpy says it
    _, schema = proposed(tmp_path, table.append_column("city", city).append_column("height", height))
    assert {"city", "height"} <= {field.name for field in schema.of(Entity.USER)[0].fields}


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


def test_a_folder_of_several_tables_is_none_of_rows(tmp_path: Path) -> None:
    table, folder = interactions(), tmp_path / "tables"
    folder.mkdir()
    pq.write_table(table.select(["user_id", "item_id", "price", "click"]), folder / "events.parquet")
    pq.write_table(table.select(["user_id", "country", "member"]), folder / "users.parquet")
    with pytest.raises(
        ExamplesError, match=r"several tables: events.parquet has item_id, price, click, which"
    ):
        propose_schema(folder, Roles(), name="rows")


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


def test_fields_that_are_called_otherwise_than_their_columns_are_named(tmp_path: Path) -> None:
    found = proposal(tmp_path)
    assert "'odd name!' is field f_odd_name_" in " ".join(found.notes)
    assert parse_schema(found.text).fields["f_odd_name_"].source == "odd name!"


def test_a_constant_among_several_labels_is_no_label_and_outcomes_are_told_from_like_names(
    tmp_path: Path,
) -> None:
    flag = np.random.default_rng(2).integers(0, 2, N)
    none, other = np.zeros(N, np.int8), flag[::-1]
    table = with_columns(label_a=flag, label_b=none, returned=other, returning_visitor=flag)
    found = proposal(tmp_path, table.drop_columns("click"))
    schema = parse_schema(found.text)
    assert [task.label for task in schema.tasks] == ["label_a"]
    rows = proposal(tmp_path, table.drop_columns(["click", "user_id", "recent"]))
    fields = parse_schema(rows.text).fields
    assert "returned" not in fields
    assert "returning_visitor" in fields


def test_an_id_that_is_null_throughout_is_refused_as_such(tmp_path: Path) -> None:
    with pytest.raises(ExamplesError, match=r"column 'shop': an id is .* null in every row looked at"):
        proposal(tmp_path, with_columns(shop=pa.nulls(N, pa.float64())), item="shop")


def test_a_label_of_words_is_told_what_to_store_and_one_of_one_class_is_refused(tmp_path: Path) -> None:
    words = with_columns(converted=["yes" if k % 3 else "no" for k in range(N)])
    with pytest.raises(ExamplesError, match="'converted': a label is 0 or 1; this column has 'no'"):
        proposal(tmp_path, words, labels=("converted",))
    with pytest.raises(ExamplesError, match="'yes': store whether it is 'yes'"):
        proposal(tmp_path, words.drop_columns("click"))
    alike = with_columns(converted=np.zeros(N, np.int8))
    with pytest.raises(ExamplesError, match=r"a label has both 0 and 1; all .* rows looked at have 0"):
        proposal(tmp_path, alike, labels=("converted",))


def test_columns_in_the_names_of_folders_are_missed_aloud(tmp_path: Path) -> None:
    for device in ("ios", "web"):
        (tmp_path / "log" / f"device={device}").mkdir(parents=True)
        pq.write_table(interactions(), tmp_path / "log" / f"device={device}" / "part-0.parquet")
    found = propose_schema(tmp_path / "log", Roles(), name="log")
    assert "device: in the names of folders alone, which are not read; write it into the files" in found.notes


def test_a_named_index_that_names_rows_is_left_out_and_one_that_names_users_is_not(tmp_path: Path) -> None:
    table = interactions().append_column("impression", pa.array(np.arange(N)))
    noted = {"index_columns": ["impression", "user_id"], "columns": [], "column_indexes": []}
    table = table.replace_schema_metadata({b"pandas": json.dumps(noted).encode()})
    found = proposal(tmp_path, table)
    fields = parse_schema(found.text).fields
    assert "impression" not in fields
    assert "user_id" in fields
    assert "impression: left out: a row number that pandas wrote" in " ".join(found.notes)
