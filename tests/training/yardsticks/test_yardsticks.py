"""Trees find what a linear model cannot, popularity counts, and all of them answer by split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from rankd_contract.schema_file import parse_schema
from rankd_training.errors import SettingError, UnknownYardstick
from rankd_training.examples.examples import Examples, load_examples
from rankd_training.yardsticks import registry
from tests.training.fields import mixed_schema, table_schema
from tests.training.tables import examples_table, write

TREES = [name for name in registry.names() if name != "popularity"]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    path, _ = write(tmp_path_factory.mktemp("data"), examples_table(3000))
    return load_examples(path, mixed_schema())


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """A table without users: clicked where the colour is red and the size is below zero, or neither."""
    generator = np.random.default_rng(0)
    red_n, size_n = generator.random(3000) < 0.5, generator.normal(size=3000)
    path = tmp_path_factory.mktemp("table") / "examples.parquet"
    columns = {
        "id": np.arange(3000),
        "colour": np.where(red_n, "red", "blue"),
        "shape": generator.integers(9, size=3000),
        "size": size_n.astype(np.float32),
        "tags": [[] for _ in range(3000)],
        "click": (red_n == (size_n < 0)) & (generator.random(3000) < 0.9),
        "split": np.resize(["train"] * 4 + ["valid", "test"], 3000),
    }
    columns["tags"] = pa.array(columns["tags"], pa.list_(pa.string()))
    pq.write_table(pa.table(columns), path)
    return load_examples(path, table_schema())


@pytest.mark.parametrize("name", registry.names())
def test_a_yardstick_gives_a_probability_a_row_and_task_by_split(name: str, examples: Examples) -> None:
    fitted = registry.fit(name, examples, seed=1, settings={})
    for split, rows_n in examples.rows.items():
        score_nT = fitted.predict(split)
        assert score_nT.shape == (len(rows_n), 2)
        assert score_nT.dtype == np.float32
        assert 0 <= score_nT.min() <= score_nT.max() <= 1
    mean_T = fitted.predict("train").mean(0)
    np.testing.assert_allclose(mean_T, examples.label_nT[examples.rows["train"]].mean(0), atol=0.05)


@pytest.mark.parametrize("name", TREES)
def test_trees_find_an_interaction_and_the_same_seed_the_same_trees(name: str, examples: Examples) -> None:
    first, again = (registry.fit(name, examples, seed=3, settings={}).predict("test") for _ in range(2))
    assert np.array_equal(first, again)
    label_n = examples.label_nT[examples.rows["test"], 0]
    assert roc_auc_score(label_n, first[:, 0]) > 0.8
    floor = registry.fit("popularity", examples, seed=3, settings={}).predict("test")
    assert roc_auc_score(label_n, floor[:, 0]) < 0.6


@pytest.mark.parametrize("name", TREES)
def test_a_table_without_users_will_do(name: str, table: Examples) -> None:
    score_nT = registry.fit(name, table, seed=0, settings={}).predict("test")
    assert roc_auc_score(table.label_nT[table.rows["test"], 0], score_nT[:, 0]) > 0.8


def test_popularity_is_the_smoothed_rate_of_the_items_key(examples: Examples) -> None:
    found_nT = registry.fit("popularity", examples, seed=0, settings={"prior_rows": 7}).predict("test")
    layout = examples.schema.layout(examples.schema.views[1].entity)
    (at,) = [entry.ids.start for entry in layout.fields if entry.field.name == "item_id"]
    item_n = examples.blocks[layout.entity].ids[:, at]
    train_n, test_n = examples.rows["train"], examples.rows["test"]
    label_nT = examples.label_nT[train_n].astype(np.float64)
    for row, found_T in zip(test_n[:40], found_nT[:40], strict=True):
        mine = label_nT[item_n[train_n] == item_n[row]]
        expected_T = (mine.sum(0) + 7 * label_nT.mean(0)) / (len(mine) + 7)
        np.testing.assert_allclose(found_T, expected_T, rtol=1e-5)


def test_popularity_of_items_without_a_key_counts_equal_items(table: Examples) -> None:
    score_n = registry.fit("popularity", table, seed=0, settings={"prior_rows": 1}).predict("train")[:, 0]
    overall = table.label_nT[table.rows["train"], 0].mean()
    # Sizes are all different, so every item has been seen once.
    expected_n = (table.label_nT[table.rows["train"], 0] + overall) / 2
    np.testing.assert_allclose(score_n, expected_n, rtol=1e-5)


def test_what_is_not_there_is_said_with_what_is(examples: Examples) -> None:
    with pytest.raises(UnknownYardstick, match="'xgboost'; known here: popularity, gbdt"):
        registry.fit("xgboost", examples, seed=0, settings={})
    with pytest.raises(SettingError, match="has no setting 'tree'; did you mean 'trees'"):
        registry.fit("gbdt", examples, seed=0, settings={"tree": 3})
    with pytest.raises(SettingError, match="prior_rows: expected a number above 0, got 0"):
        registry.fit("popularity", examples, seed=0, settings={"prior_rows": 0})


def test_rare_categories_beyond_what_a_histogram_holds_are_one(tmp_path: Path) -> None:
    schema = parse_schema("""
rankd_schema: 1
name: wide
views:
  - {name: row, entity: item, key: id, fields: [{name: city, kind: categorical, dtype: int64, hash: 5000}]}
tasks: [{name: click}]
""")
    generator = np.random.default_rng(0)
    city_n = generator.integers(800, size=20_000)
    click_n = (city_n < 60) ^ (generator.random(20_000) < 0.05)
    city_n[: 60 * 100] = generator.integers(60, size=6000)  # these are frequent
    click_n[: 60 * 100] = True
    split_n = np.resize(["train"] * 4 + ["valid", "test"], 20_000)
    columns = {"id": city_n, "city": city_n, "click": click_n, "split": split_n}
    path = tmp_path / "examples.parquet"
    pq.write_table(pa.table(columns), path)
    wide = load_examples(path, schema)
    for name in TREES:
        score_nT = registry.fit(name, wide, seed=0, settings={"trees": 50}).predict("test")
        assert roc_auc_score(wide.label_nT[wide.rows["test"], 0], score_nT[:, 0]) > 0.9
