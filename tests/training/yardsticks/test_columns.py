from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rankd_training.examples.examples import load_examples
from rankd_training.yardsticks.columns import flatten
from tests.training.fields import mixed_schema
from tests.training.tables import examples_table, write


def test_every_kind_of_field_becomes_columns_a_tree_can_split(tmp_path: Path) -> None:
    path, _ = write(tmp_path, examples_table(600))
    examples = load_examples(path, mixed_schema())
    table = flatten(examples)
    assert table.value_nC.shape == (600, len(table.names))
    by_name = dict(zip(table.names, table.value_nC.T, strict=True))
    categories = {name for name, is_one in zip(table.names, table.categorical_C, strict=True) if is_one}
    assert categories == {"user_id", "recent.first", "item_id", "tags.first", "hour"}

    raw = examples_table(600)
    recent, tags = (pc.list_value_length(raw[name]).to_numpy() for name in ("recent", "tags"))
    np.testing.assert_array_equal(by_name["recent.length"], recent)
    np.testing.assert_array_equal(by_name["tags.2"], tags > 0)  # the first tag is always a
    np.testing.assert_array_equal(by_name["income"], raw["income"].to_numpy())
    age_n = np.array([np.nan if x is None else x for x in raw["age"].to_pylist()])
    assert np.isnan(by_name["age"][np.isnan(age_n)]).all()
    order = np.argsort(age_n[~np.isnan(age_n)], kind="stable")
    assert (np.diff(by_name["age"][~np.isnan(age_n)][order]) >= 0).all()


def test_categories_are_ranked_by_training_rows_and_what_those_lack_is_missing(tmp_path: Path) -> None:
    raw = examples_table(600).to_pydict()
    # Both hash into ten buckets of their own; 7 is the user of half the training rows, 5 of test rows only.
    raw["user_id"] = [5 if split == "test" else 7 if k % 2 else 1 for k, split in enumerate(raw["split"])]
    path, _ = write(tmp_path, pa.table(raw))
    examples = load_examples(path, mixed_schema())
    user_n = dict(zip((t := flatten(examples)).names, t.value_nC.T, strict=True))["user_id"]
    assert np.isnan(user_n[examples.rows["test"]]).all()
    counts = [int((user_n[examples.rows["train"]] == rank).sum()) for rank in (0, 1)]
    assert counts[0] >= counts[1] > 0
