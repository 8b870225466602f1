from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from rankd_contract.schema import Entity, FeatureSchema
from rankd_contract.schema_file import load_schema
from rankd_service.features.view_file import ViewFile
from rankd_training.data import csv_files
from rankd_training.data.conversion import convert
from rankd_training.data.formats import FORMATS, describe
from rankd_training.data.movielens import EXAMPLES
from rankd_training.data.prepared import load_record
from rankd_training.data.splits import SplitPlan
from rankd_training.errors import ConversionRefused, MalformedSource
from rankd_training.examples.examples import Examples, load_examples
from rankd_training.recipes import ctr
from rankd_training.settings import TrainSettings
from tests.training.data.published_forms import ROWS, WRITERS


def converted(name: str, tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    WRITERS[name](source)
    return convert(describe(name), [source], tmp_path / "out")


def encoded(folder: Path) -> tuple[FeatureSchema, Examples]:
    schema = load_schema(folder / "schema.yaml")
    split = (
        None if "split" in pq.read_schema(folder / "examples.parquet").names else SplitPlan((0.5, 0.25, 0.25))
    )
    return schema, load_examples(folder, schema, split=split)


def column(folder: Path, name: str, file: str = "examples") -> list[Any]:
    return pq.read_table(folder / f"{file}.parquet", columns=[name])[name].to_pylist()


def test_every_format_has_a_test_in_its_true_form() -> None:
    assert WRITERS.keys() == FORMATS.keys()


@pytest.mark.parametrize("name", FORMATS)
def test_published_files_become_examples_that_encode_and_train(name: str, tmp_path: Path) -> None:
    folder = converted(name, tmp_path)
    schema, examples = encoded(folder)
    assert schema.name == name
    assert len(examples) == ROWS
    assert load_record(folder).files["examples.parquet"].rows == ROWS
    assert load_record(folder).provenance.name == name
    split = None if name in {"frappe", "movielens-1m"} else "50/25/25"
    settings = TrainSettings(
        folder, folder / "schema.yaml", tmp_path / "run", "lr", epochs=1, split=split, batch_size=64
    )
    assert ctr.train(settings).metrics["test"].keys() == {task.name for task in schema.tasks}


@pytest.mark.parametrize("name", ["frappe", "movielens-1m", "taobao-ads", "kuairand"])
def test_users_and_items_are_as_the_store_takes_them(name: str, tmp_path: Path) -> None:
    folder = converted(name, tmp_path)
    schema = load_schema(folder / "schema.yaml")
    for entity, file in ((Entity.USER, "users"), (Entity.ITEM, "items")):
        (view,) = schema.of(entity)
        with ViewFile(folder / f"{file}.parquet", view, 1000) as rows:
            assert len(rows.hashes()) == load_record(folder).files[f"{file}.parquet"].rows
        ids = column(folder, view.key, file)
        assert set(column(folder, view.key)) - set(ids) <= {900_024, 10_017, 114}, "all but the one left out"


def test_criteo_keeps_gaps_as_gaps(tmp_path: Path) -> None:
    folder = converted("criteo", tmp_path)
    _, examples = encoded(folder)
    ids = examples.blocks[Entity.ITEM].ids
    assert ids.shape == (ROWS, 39)
    for field in (0, 12, 13, 38):
        source = f"I{field + 1}" if field < 13 else f"C{field - 12}"
        assert [value is None for value in column(folder, source)] == (ids[:, field] == 0).tolist()
    assert column(folder, "label")[:5] == [0, 1, 0, 0, 1]


def test_avazu_ids_stay_whole_and_hours_become_times(tmp_path: Path) -> None:
    folder = converted("avazu", tmp_path)
    assert column(folder, "id")[7] == "10000000000000000007"
    assert column(folder, "timestamp")[:2] == [1_413_849_600, 1_413_853_200], "2014-10-21 00:00 and 01:00 UTC"
    schema, examples = encoded(folder)
    hour = schema.layout(Entity.CONTEXT).fields[0].ids
    assert (examples.blocks[Entity.CONTEXT].ids[:, hour].ravel() - 2 == np.arange(ROWS) % 24).all()


def test_frappe_takes_splits_from_names_and_fields_from_positions(tmp_path: Path) -> None:
    folder = converted("frappe", tmp_path)
    _, examples = encoded(folder)
    assert {name: len(rows) for name, rows in examples.rows.items()} == {
        "train": 120,
        "valid": 60,
        "test": 60,
    }
    assert column(folder, "item_id")[:2] == [957, 958]
    assert column(folder, "city")[:2] == [5109, 5110]
    assert column(folder, "label")[:4] == [1, 0, 0, 1]


def test_movielens_1m_has_the_columns_of_movielens_100k(tmp_path: Path) -> None:
    folder = converted("movielens-1m", tmp_path)
    assert pq.read_schema(folder / "examples.parquet").equals(EXAMPLES)
    assert column(folder, "title", "items")[:3] == [
        "Toy Story (1995)",
        'Mission: "Impossible" (1996)',
        "Misérables, Les (1995)",
    ]
    assert column(folder, "genres", "items")[0] == ["Animation", "Children's", "Comedy"]
    assert column(folder, "occupation", "users")[:2] == ["educator", "artist"]
    assert column(folder, "year", "items")[:3] == [1995, 1996, 1995]


def test_taobao_ads_joins_what_is_known_and_leaves_out_what_is_not(tmp_path: Path) -> None:
    folder = converted("taobao-ads", tmp_path)
    rows = pq.read_table(folder / "examples.parquet").to_pylist()
    for row in rows:
        user, ad = row["user_id"] - 900_000, row["adgroup_id"] - 10_000
        assert row["age_level"] == (None if user == 24 else user % 7)
        assert row["new_user_class_level"] == (None if user == 24 or user % 4 else 2)
        assert row["brand"] == (None if ad == 17 or ad % 3 else 95_471)
        assert row["price"] == (None if ad == 17 else 170.5 + ad)
    assert column(folder, "click")[:4] == [1, 0, 0, 1]


def test_kuairand_reads_every_log_and_whole_numbers_with_a_point(tmp_path: Path) -> None:
    folder = converted("kuairand", tmp_path)
    rows = pq.read_table(folder / "examples.parquet").to_pylist()
    assert [row["timestamp"] for row in rows] == [1_649_400_000 + 3_600 * k for k in range(ROWS)]
    assert rows[0]["onehot_feat13"] == 0
    assert rows[3]["onehot_feat13"] is None
    assert (rows[1]["tags"], rows[2]["tags"]) == (["12", "65"], None)
    assert rows[0]["follow_user_num_range"] == "(0,10]"
    assert not {"play_time_ms", "comment_stay_time"} & rows[0].keys(), "what came after is no feature"


def test_long_files_stream_in_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_files, "_BLOCK_BYTES", 8192)
    (tmp_path / "train.txt").parent.mkdir(exist_ok=True)
    WRITERS["criteo"](tmp_path)
    told: list[int] = []
    folder = convert(
        describe("criteo"),
        [tmp_path / "train.txt"],
        tmp_path / "out",
        progress=lambda done, _: told.append(done),
    )
    assert pq.ParquetFile(folder / "examples.parquet").num_row_groups == len(told) > 3
    assert told[-1] == ROWS == load_record(folder).files["examples.parquet"].rows
    assert json.loads((folder / "dataset.json").read_text())["provenance"]["source"] == "train.txt"


def test_what_cannot_be_converted_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    WRITERS["taobao-ads"](tmp_path)
    how = describe("taobao-ads")
    with pytest.raises(ConversionRefused, match=r"needs ad_feature\.csv too"):
        convert(how, [tmp_path / "raw_sample.csv", tmp_path / "user_profile.csv"], tmp_path / "out")
    (tmp_path / "other.csv").touch()
    with pytest.raises(ConversionRefused, match=r"no file of this name; it has raw_sample\.csv"):
        convert(how, [tmp_path / "other.csv"], tmp_path / "out")
    with pytest.raises(ConversionRefused, match="does not exist"):
        convert(how, [tmp_path / "absent.csv"], tmp_path / "out")
    with pytest.raises(ConversionRefused, match="exists; choose another folder"):
        convert(how, [tmp_path], tmp_path)
    with pytest.raises(ConversionRefused, match="'taobao'; known: criteo, avazu"):
        describe("taobao")
    header, *rows = (tmp_path / "raw_sample.csv").read_text().splitlines()
    for text, said in (
        (header.replace(",clk", ",click"), r"no column 'clk'; did you mean 'click'"),
        ("\n".join([header, rows[0], rows[1].replace("_1007", "_1007,7")]), "Expected 6 columns, got 7"),
        ("\n".join([header, rows[0].replace("900000", "nobody")]), "conversion error to int64.*nobody"),
        (header, "hold no rows"),
    ):
        (tmp_path / "raw_sample.csv").write_text(text + "\n")
        with pytest.raises((MalformedSource, ConversionRefused), match=said):
            convert(how, [tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
