"""The real files that a user brings, where they are at hand; each prepared, encoded and trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankd_contract.schema import FIRST_VALUE, UNKNOWN, Entity, FeatureSchema
from rankd_contract.schema_file import load_schema
from rankd_service.features.view_file import ViewFile
from rankd_training.data import catalog
from rankd_training.errors import SourceAbsent
from rankd_training.examples.examples import Examples, load_examples
from rankd_training.recipes import ctr
from rankd_training.settings import TrainSettings


def prepared(name: str, root: Path) -> tuple[Path, FeatureSchema, Examples]:
    try:
        folder = catalog.get(name, root=root)
    except SourceAbsent as error:
        pytest.skip(str(error))
    schema = load_schema(catalog.describe(name).schema)
    return folder, schema, load_examples(folder / "examples.parquet", schema)


def test_diabetes130_is_arm_nets_table_to_the_row(shared_data: Path) -> None:
    folder, schema, examples = prepared("diabetes130", shared_data)
    assert {s: len(rows) for s, rows in examples.rows.items()} == {
        "train": 81_412,
        "valid": 10_177,
        "test": 10_177,
    }
    assert [int(examples.label_nT[rows, 0].sum()) for rows in examples.rows.values()] == [9_086, 1_135, 1_136]
    ids = examples.blocks[Entity.ITEM].ids
    assert ids.shape == (101_766, 43)
    assert ids.min() >= FIRST_VALUE, "every id is in its field's vocabulary"
    assert sum(schema.cardinality(f) - FIRST_VALUE for f in schema.fields.values()) == 369
    # The ids were given field by field, so they come back from the encoded ones by counting.
    first = np.cumsum([0] + [schema.cardinality(f) - FIRST_VALUE for f in schema.fields.values()])[:-1]
    table = pq.read_table(folder / "examples.parquet", columns=list(schema.fields))
    raw = np.stack([column.to_numpy() for column in table.columns], axis=1)
    assert np.array_equal(ids - FIRST_VALUE + first, raw)


def test_census_income_has_two_tasks_and_no_instance_weight(shared_data: Path) -> None:
    folder, schema, examples = prepared("census-income", shared_data)
    assert [task.name for task in schema.tasks] == ["income", "never_married"]
    assert examples.label_nT.sum(0).tolist() == [6_186, 43_143]
    assert {s: len(rows) for s, rows in examples.rows.items()} == {
        "train": 59_858,
        "valid": 19_951,
        "test": 19_953,
    }
    assert len(schema.fields) == 39
    assert not any("weight" in name for name in pq.read_schema(folder / "examples.parquet").names)
    assert examples.blocks[Entity.ITEM].ids.min() > UNKNOWN, "no value is missing from a vocabulary"


def test_movielens_latest_small_splits_as_published(shared_data: Path) -> None:
    folder, _, examples = prepared("movielens-latest-small", shared_data)
    assert len(examples) == 100_836
    assert int(examples.label_nT[:, 0].sum()) == 48_580
    source = shared_data / "ml-latest-small" / "ratings.parquet"
    if not source.is_file():
        pytest.skip("the files at hand are GroupLens' own, without a split")
    given = pq.read_table(source).sort_by([(c, "ascending") for c in ("timestamp", "user_id", "movie_id")])
    split = pq.read_table(folder / "examples.parquet")["split"]
    pairs = zip(split.to_pylist(), given["time_split"].cast(pa.string()).to_pylist(), strict=True)
    assert sum(ours != theirs for ours, theirs in pairs) <= 3, "shares are rounded down, not up"


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("diabetes130", {"items": 101_766}),
        ("census-income", {"items": 99_762}),
        ("movielens-latest-small", {"users": 610, "items": 9_742}),
    ],
)
def test_the_store_takes_what_is_prepared(name: str, rows: dict[str, int], shared_data: Path) -> None:
    folder, schema, _ = prepared(name, shared_data)
    for view in schema.stored_views:
        file = {Entity.USER: "users", Entity.ITEM: "items"}[view.entity]
        with ViewFile(folder / f"{file}.parquet", view, 1 << 14) as found:
            assert len(found.hashes()) == rows[file]


@pytest.mark.parametrize("name", ["diabetes130", "census-income", "movielens-latest-small"])
def test_what_a_user_brings_trains_as_it_is(name: str, shared_data: Path, tmp_path: Path) -> None:
    folder, _, _ = prepared(name, shared_data)
    schema = catalog.describe(name).schema
    settings = TrainSettings(
        folder / "examples.parquet", schema, tmp_path / "run", "lr", epochs=1, learning_rate=0.01
    )
    for task, found in ctr.train(settings).metrics["valid"].items():
        assert found.auc is not None
        assert found.auc > 0.55, task
