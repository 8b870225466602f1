"""Crosses: what the file may say, which row a pair of ids reads, and what a cross changes for stored rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rankd_contract.crosses import cross_ids
from rankd_contract.errors import SchemaError
from rankd_contract.pair_hash import HashedPair, pair_row
from rankd_contract.schema import MISSING, UNKNOWN, Cross
from rankd_contract.schema_file import parse_schema
from rankd_contract.signature import field_weights, inputs, slot_names
from tests.support.example_schema import EXAMPLE, EXAMPLE_YAML

GOLDEN = Path(__file__).parent / "golden" / "crosses.json"
CROSSES = """
crosses:
  - {name: gender_item, of: [gender, item], rows: 1000}
  - {name: member_hour, of: [member, hour], rows: 1000}
  - {name: item_title, of: [item, title], rows: 7000}
  - {name: visits_device, of: [device, visits], rows: 5}
"""
CROSSED = parse_schema(EXAMPLE_YAML + CROSSES)
BY_NAME = {cross.name: cross for cross in CROSSED.crosses}


def ids(cross: Cross, left: list[int], right: list[int]) -> list[int]:
    found = cross_ids(CROSSED, cross, np.array(left, np.int32), np.array(right, np.int32))
    return [int(one) for one in found]


def test_hashes_and_fingerprints_of_crosses_never_change() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert f"{CROSSED.fingerprint:016x}" == golden["fingerprint"]
    for vector in golden["pairs"]:
        pair = HashedPair(*vector["pair"])
        left, right = (np.array(vector[side], np.int64) for side in ("left", "right"))
        assert pair_row(pair, left, right).tolist() == vector["rows"]


def test_a_cross_changes_the_schema_and_no_stored_row_and_no_input() -> None:
    assert CROSSED.fingerprint != EXAMPLE.fingerprint
    for view in EXAMPLE.views:
        assert CROSSED.row_fingerprint(view) == EXAMPLE.row_fingerprint(view)
    assert inputs(CROSSED) == inputs(EXAMPLE)
    assert replace(CROSSED, crosses=()) == EXAMPLE
    assert replace(CROSSED, crosses=()).fingerprint == EXAMPLE.fingerprint


CHANGES: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "name": lambda crosses: crosses[0].update(name="other"),
    "rows": lambda crosses: crosses[0].update(rows=1001),
    "fields": lambda crosses: crosses[0].update(of=["gender", "title"]),
    "order of fields": lambda crosses: crosses[0].update(of=["item", "gender"]),
    "one less": lambda crosses: crosses.pop(),
    "order": lambda crosses: crosses.reverse(),
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_decides_a_crosss_table_belongs_to_the_schema(what: str) -> None:
    tree = yaml.safe_load(EXAMPLE_YAML + CROSSES)
    CHANGES[what](tree["crosses"])
    assert parse_schema(json.dumps(tree)).fingerprint != CROSSED.fingerprint


def test_a_cross_lies_on_the_users_side_unless_a_field_is_the_items() -> None:
    assert slot_names(CROSSED) == (
        (*slot_names(EXAMPLE)[0], "member_hour", "visits_device"),
        ("item", "title", "price", "stock", "gender_item", "item_title"),
    )
    assert slot_names(EXAMPLE)[0] == (
        *("age", "gender", "member", "visits", "recent", "tags"),
        *("hour", "weekday", "device"),
    )
    assert field_weights(CROSSED, 3).dims == ("N", 17, 3)
    assert field_weights(EXAMPLE, 3).dims == ("N", 13, 3)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("gender_item", 2 + 1000),  # of 2 x 5,000
        ("member_hour", 2 + 2 * 24),  # fewer than the rows they may take
        ("item_title", 2 + 7000),
        ("visits_device", 2 + 5),  # of 2 x 4: bucketized numbers have an id too
    ],
)
def test_a_crosss_table_is_as_large_as_its_combinations_or_as_it_may_be(name: str, rows: int) -> None:
    assert CROSSED.cardinality(BY_NAME[name]) == rows


def test_a_missing_value_is_missing_from_its_cross_and_an_unknown_one_unknown() -> None:
    cross = BY_NAME["gender_item"]
    assert ids(cross, [0, 0, 0, 2], [0, 1, 9, 0]) == [MISSING] * 4
    assert ids(cross, [1, 1, 2], [1, 9, 1]) == [UNKNOWN] * 3
    outside = 2**31 - 1
    assert ids(cross, [-1, 4, 2, outside], [9, 9, 5002, outside]) == [UNKNOWN] * 4
    assert ids(cross, [-5], [0]) == [MISSING]
    assert min(ids(cross, [2, 3], [2, 5001])) >= 2


def test_where_rows_suffice_every_combination_has_its_own() -> None:
    left, right = np.meshgrid(np.arange(2, 4), np.arange(2, 26))
    found = ids(BY_NAME["member_hour"], left.ravel().tolist(), right.ravel().tolist())
    assert sorted(found) == list(range(2, 50))


@given(left=st.integers(-(2**31), 2**31 - 1), right=st.integers(-(2**31), 2**31 - 1))
def test_no_id_leaves_its_crosss_table(left: int, right: int) -> None:
    for cross in CROSSED.crosses:
        (found,) = ids(cross, [left], [right])
        assert 0 <= found < CROSSED.cardinality(cross)


def test_two_crosses_of_the_same_fields_share_no_collisions() -> None:
    pairs = [HashedPair(name, 1000, 1000, 5000) for name in ("a", "b")]
    left, right = np.arange(1000, dtype=np.int64), np.full(1000, 17, np.int64)
    one, other = (pair_row(pair, left, right) for pair in pairs)
    assert (one == other).mean() < 0.01


def refused(text: str) -> str:
    with pytest.raises(SchemaError) as error:
        parse_schema(EXAMPLE_YAML + "crosses: " + text)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[{name: x, of: [gendre, item], rows: 9}]",
            "crosses[0] (x).of[0]: 'gendre' is not a field of any view",
        ),
        ("[{name: x, of: [gendre, item], rows: 9}]", "did you mean 'gender'?"),
        ("[{name: x, of: [gender, 7], rows: 9}]", "of[1]: 7 is not a field"),
        ("[{name: x, of: [gender, [item]], rows: 9}]", "of[1]: ['item'] is not a field"),
        ("[{name: x, of: [gender, recent], rows: 9}]", "of[1]: 'recent' is a list; a cross needs one id"),
        ("[{name: x, of: [tags, item], rows: 9}]", "of[0]: 'tags' is a list"),
        ("[{name: x, of: [age, item], rows: 9}]", "of[0]: 'age' is a number without buckets"),
        ("[{name: x, of: [item, item], rows: 9}]", "(x).of: a field crossed with itself is that field"),
        ("[{name: x, of: item, rows: 9}]", "(x).of: expected a list of two fields, got 'item'"),
        ("[{name: x, of: [item], rows: 9}]", "(x).of: expected a list of two fields, got ['item']"),
        ("[{name: x, of: [item, title, hour], rows: 9}]", "expected a list of two fields"),
        ("[{name: x, rows: 9}]", "(x).of: expected a list of two fields, got None"),
        ("[{name: item, of: [gender, item], rows: 9}]", "crosses[0].name: 'item' is a field already"),
        (
            "[{name: x, of: [gender, item], rows: 9}, {name: x, of: [item, title], rows: 9}]",
            "crosses[1].name: 'x' is a cross already",
        ),
        ("[{name: x, of: [gender, item], rows: 1}]", "(x).rows: in one row all combinations are alike"),
        ("[{name: x, of: [gender, item], rows: 0}]", "(x).rows: expected a whole number above 0, got 0"),
        ("[{name: x, of: [gender, item], rows: 1e3}]", "(x).rows: expected a whole number"),
        ("[{name: x, of: [gender, item]}]", "(x).rows: expected a whole number above 0, got None"),
        ("[{name: x, of: [gender, item], row: 9}]", "unknown key 'row'; did you mean 'rows'?"),
        ("[{name: x y, of: [gender, item], rows: 9}]", "crosses[0].name: expected a letter"),
        ("[]", "the file.crosses: expected a list that is not empty, got []"),
        ("x", "the file.crosses: expected a list that is not empty, got 'x'"),
    ],
)
def test_a_wrong_cross_is_refused_by_its_place(text: str, said: str) -> None:
    assert said in refused(text)
