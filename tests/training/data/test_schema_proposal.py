from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankd_contract.schema import Entity, Kind, TransformKind
from rankd_contract.schema_file import parse_schema
from rankd_training.data import sampled_rows
from rankd_training.data.schema_proposal import Roles, propose_schema
from rankd_training.errors import ExamplesError
from rankd_training.recipes import ctr
from rankd_training.settings import TrainSettings
from tests.training.data.interactions import N, interactions, proposal, proposed, shopping, with_columns


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


def test_stored_views_say_which_column_is_their_time_and_no_time_of_a_user_is_it(tmp_path: Path) -> None:
    _, schema = proposed(tmp_path, shopping())
    (user,), (item,) = schema.of(Entity.USER), schema.of(Entity.ITEM)
    assert "registered_at_hour" in {field.name for field in user.fields}
    assert (user.event_time, item.event_time) == ("timestamp", "timestamp")
    text, schema = proposed(tmp_path, shopping().drop_columns(["timestamp"]))
    assert schema.of(Entity.USER)[0].event_time == "event_time"
    assert text.count("    event_time: event_time\n") == 2


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


def test_decimals_are_measures_and_milliseconds_are_named(tmp_path: Path) -> None:
    table = interactions()
    price = pa.array([Decimal(k % 900) / 100 for k in range(N)], pa.decimal128(9, 2))
    table = table.set_column(table.column_names.index("price"), "price", price)
    milliseconds = pa.array(1_700_000_000_000 + 3_600_000 * np.arange(N))
    text, schema = proposed(tmp_path, table.append_column("clicked_at", milliseconds))
    assert schema.fields["price"].kind is Kind.NUMERIC
    assert "# clicked_at: a time in milliseconds" in text
    assert "clicked_at" not in {field.source for field in schema.fields.values()}


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


def test_a_folder_of_several_tables_is_none_of_rows(tmp_path: Path) -> None:
    table, folder = interactions(), tmp_path / "tables"
    folder.mkdir()
    pq.write_table(table.select(["user_id", "item_id", "price", "click"]), folder / "events.parquet")
    pq.write_table(table.select(["user_id", "country", "member"]), folder / "users.parquet")
    with pytest.raises(
        ExamplesError, match=r"several tables: events.parquet has item_id, price, click, which"
    ):
        propose_schema(folder, Roles(), name="rows")


def test_fields_that_are_called_otherwise_than_their_columns_are_named(tmp_path: Path) -> None:
    found = proposal(tmp_path)
    assert "'odd name!' is field f_odd_name_" in " ".join(found.notes)
    assert parse_schema(found.text).fields["f_odd_name_"].source == "odd name!"


def test_columns_in_the_names_of_folders_are_missed_aloud(tmp_path: Path) -> None:
    for device in ("ios", "web"):
        (tmp_path / "log" / f"device={device}").mkdir(parents=True)
        pq.write_table(interactions(), tmp_path / "log" / f"device={device}" / "part-0.parquet")
    found = propose_schema(tmp_path / "log", Roles(), name="log")
    assert "device: in the names of folders alone, which are not read; write it into the files" in found.notes
