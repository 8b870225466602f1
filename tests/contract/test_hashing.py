from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankd_contract.hashing import Strings, bucket, hash_ints, hash_strings, salt
from rankd_contract.keys import entity_hashes, key_prefix
from tests.support.example_schema import EXAMPLE

GOLDEN = json.loads((Path(__file__).parent / "golden" / "hashing.json").read_text(encoding="utf-8"))
MASK = 2**64 - 1
FNV_OFFSET, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3


def finalise(h: int) -> int:
    h = ((h ^ (h >> 33)) * 0xFF51AFD7ED558CCD) & MASK
    h = ((h ^ (h >> 33)) * 0xC4CEB9FE1A85EC53) & MASK
    return h ^ (h >> 33)


def scalar_string_hash(text: str, seed: int = 0) -> int:
    h = FNV_OFFSET ^ seed
    for byte in text.encode():
        h = ((h ^ byte) * FNV_PRIME) & MASK
    return finalise(h)


def scalar_int_hash(value: int, seed: int = 0) -> int:
    return finalise((value & MASK) ^ FNV_OFFSET ^ seed)


@pytest.mark.parametrize("vector", GOLDEN["strings"], ids=lambda v: repr(v["value"][:12]))
def test_the_hash_of_a_string_never_changes(vector: dict[str, str]) -> None:
    seed = int(vector["seed"], 16)
    found = hash_strings(Strings.from_list([vector["value"]]), seed)
    assert f"{int(found[0]):016x}" == vector["hash"]
    assert scalar_string_hash(vector["value"], seed) == int(vector["hash"], 16)


@pytest.mark.parametrize("vector", GOLDEN["ints"], ids=lambda v: str(v["value"]))
def test_the_hash_of_an_integer_never_changes(vector: dict[str, str]) -> None:
    seed = int(vector["seed"], 16)
    found = hash_ints(np.array([int(vector["value"])], np.int64), seed)
    assert f"{int(found[0]):016x}" == vector["hash"]
    assert scalar_int_hash(int(vector["value"]), seed) == int(vector["hash"], 16)


@pytest.mark.parametrize("vector", GOLDEN["buckets"], ids=lambda v: f"{v['hash']}/{v['num_buckets']}")
def test_the_bucket_of_a_hash_never_changes(vector: dict[str, str]) -> None:
    hashes = np.array([int(vector["hash"], 16)], np.uint64)
    assert bucket(hashes, int(vector["num_buckets"])).tolist() == [int(vector["bucket"])]


def test_the_golden_vectors_cover_the_edges() -> None:
    strings = [v["value"] for v in GOLDEN["strings"]]
    assert "" in strings
    assert any(not s.isascii() for s in strings)
    assert any(len(s.encode()) == 128 for s in strings)
    assert {0, -1, 2**63 - 1, -(2**63)} <= {int(v["value"]) for v in GOLDEN["ints"]}


@given(st.lists(st.text(max_size=40), max_size=30), st.integers(0, MASK))
def test_a_column_of_strings_hashes_as_its_strings_do(texts: list[str], seed: int) -> None:
    found = hash_strings(Strings.from_list(texts), seed)
    assert found.dtype == np.uint64
    assert found.tolist() == [scalar_string_hash(t, seed) for t in texts]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30), st.integers(0, MASK))
def test_a_column_of_integers_hashes_as_its_integers_do(values: list[int], seed: int) -> None:
    found = hash_ints(np.array(values, np.int64), seed)
    assert found.tolist() == [scalar_int_hash(v, seed) for v in values]


def test_strings_that_do_not_start_at_byte_0_hash_alike() -> None:
    whole = Strings.from_list(["one", "two", "drei", ""])
    tail = Strings(whole.data, whole.offsets[1:])
    assert hash_strings(tail).tolist() == hash_strings(whole)[1:].tolist()


def test_no_rows_hash_to_no_hashes() -> None:
    assert hash_strings(Strings.from_list([])).tolist() == []
    assert hash_ints(np.zeros(0, np.int64)).tolist() == []


@given(st.lists(st.integers(0, MASK), max_size=50), st.integers(1, 2**31 - 3))
def test_a_bucket_lies_inside_the_table(hashes: list[int], num_buckets: int) -> None:
    found = bucket(np.array(hashes, np.uint64), num_buckets)
    assert found.dtype == np.int32
    assert all(0 <= b < num_buckets for b in found.tolist())


def test_ids_in_a_row_spread_evenly_over_buckets() -> None:
    counts = np.bincount(bucket(hash_ints(np.arange(100_000)), 100), minlength=100)
    assert counts.min() > 850
    assert counts.max() < 1150
    words = Strings.from_list([str(i) for i in range(100_000)])
    counts = np.bincount(bucket(hash_strings(words), 100), minlength=100)
    assert counts.min() > 850
    assert counts.max() < 1150


def test_equal_values_in_two_fields_fall_into_unrelated_buckets() -> None:
    values = np.arange(10_000)
    same = bucket(hash_ints(values, salt("user")), 100) == bucket(hash_ints(values, salt("item")), 100)
    assert 50 < same.sum() < 200


def test_user_7_is_not_item_7() -> None:
    user, item = EXAMPLE.view("user_profile"), EXAMPLE.view("item_profile")
    assert entity_hashes(user, ["7"])[0] != entity_hashes(item, ["7"])[0]


def test_the_views_of_one_entity_agree_on_its_hash() -> None:
    profile, history = EXAMPLE.view("user_profile"), EXAMPLE.view("user_history")
    assert entity_hashes(profile, ["7"])[0] == entity_hashes(history, ["7"])[0]
    assert entity_hashes(profile, ["7"])[0] == scalar_string_hash("7", scalar_string_hash("user"))


def test_a_key_names_the_view_and_what_its_bytes_mean() -> None:
    view = EXAMPLE.view("user_profile")
    expected = f"shop:user_profile:{EXAMPLE.row_fingerprint(view):016x}"[:-8] + ":"
    assert key_prefix("shop", EXAMPLE, view) == expected
