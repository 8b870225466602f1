from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rankd_contract.encoding import Block, Encoder
from rankd_contract.keys import entity_hashes
from rankd_contract.packing import FORMAT, FeatureStatus, RowFormat
from rankd_contract.schema import Entity, FeatureSchema
from rankd_contract.schema_file import load_schema, parse_schema
from tests.support.example_schema import EXAMPLE

GOLDEN = Path(__file__).parent / "golden"
PRESENT, NOT_FOUND = FeatureStatus.PRESENT, FeatureStatus.NOT_FOUND
CORRUPT, MISMATCH, FOREIGN = FeatureStatus.CORRUPT, FeatureStatus.MISMATCH, FeatureStatus.FOREIGN

WIDE = """
rankd_schema: 1
name: wide
views:
  - name: users
    entity: user
    key: user_id
    fields:
{fields}
  - {{name: items, entity: item, key: id, fields: [{{name: item, kind: categorical, dtype: int64, hash: 9}}]}}
tasks: [{{name: click}}]
"""


def wide(num_ids: int, num_values: int) -> FeatureSchema:
    """Return a schema whose view `users` has rows of so many ids and numbers."""
    fields = [f"      - {{name: i{i}, kind: categorical, dtype: int64, hash: 9}}" for i in range(num_ids)]
    fields += [
        f"      - {{name: v{i}, kind: numeric, dtype: float32, default: 0}}" for i in range(num_values)
    ]
    return parse_schema(WIDE.format(fields="\n".join(fields)))


def format_of(num_ids: int, num_values: int) -> RowFormat:
    schema = wide(num_ids, num_values)
    return RowFormat(schema, schema.view("users"))


def a_block(n: int, row: RowFormat, seed: int = 0) -> Block:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 2**31, (n, row.num_ids), np.int32)
    return Block(ids, rng.standard_normal((n, row.num_values), np.float32))


def hashes_of(n: int) -> NDArray[np.uint64]:
    return np.random.default_rng(9).integers(0, 2**64, n, np.uint64)


def emptied(n: int, row: RowFormat) -> Block:
    return Block(np.full((n, row.num_ids), -7, np.int32), np.full((n, row.num_values), -7, np.float32))


def status_of(row: RowFormat, packed: list[bytes | None], hashes: NDArray[np.uint64]) -> list[int]:
    """Unpack, and check on the way that only PRESENT rows were written."""
    out, times = emptied(len(packed), row), np.full(len(packed), -7, np.int64)
    statuses = row.unpack(packed, hashes, out, times)
    untouched = statuses != PRESENT
    assert (out.ids[untouched] == -7).all()
    assert (out.values[untouched] == -7).all()
    assert (times[untouched] == -7).all()
    assert statuses.dtype == np.uint8
    return [int(s) for s in statuses]


def resealed(row: RowFormat, packed: bytes, at: int, value: bytes) -> bytes:
    """Change bytes of a row and write the checksum that fits, as a different writer would have."""
    changed = bytearray(packed)
    changed[at : at + len(value)] = value
    words = np.frombuffer(bytes(changed), np.uint64).reshape(1, row.row_words).copy()
    words[:, -1] = row._checksum(words)
    return words.tobytes()


# what is packed comes back


@given(
    num_ids=st.integers(0, 9),
    num_values=st.integers(0, 9),
    n=st.integers(0, 8),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_every_row_comes_back_as_it_was(num_ids: int, num_values: int, n: int, data: st.DataObject) -> None:
    if num_ids + num_values == 0:
        num_ids = 1
    row = format_of(num_ids, num_values)
    floats = st.floats(width=32, allow_infinity=False)
    ids = data.draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=n * num_ids, max_size=n * num_ids))
    values = data.draw(st.lists(floats, min_size=n * num_values, max_size=n * num_values))
    times = data.draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=n, max_size=n))
    hashes = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=n, max_size=n))
    block = Block(
        np.array(ids, np.int32).reshape(n, num_ids), np.array(values, np.float32).reshape(n, num_values)
    )
    packed = row.pack(block, np.array(hashes, np.uint64), np.array(times, np.int64))
    assert [len(p) for p in packed] == [row.row_bytes] * n
    assert all(type(p) is bytes for p in packed)

    out, out_times = emptied(n, row), np.zeros(n, np.int64)
    statuses = row.unpack(packed, np.array(hashes, np.uint64), out, out_times)
    assert statuses.tolist() == [PRESENT] * n
    np.testing.assert_array_equal(out.ids, block.ids)
    np.testing.assert_array_equal(out.values, block.values)
    assert out_times.tolist() == times


def test_missing_values_are_still_missing_when_read() -> None:
    view = EXAMPLE.view("item_profile")
    row = RowFormat(EXAMPLE, view)
    block = Block.empty(1, Encoder(EXAMPLE, Entity.ITEM).layout)
    hashes = entity_hashes(view, ["1"])
    out = emptied(1, row)
    assert (
        row.unpack(row.pack(block, hashes, np.zeros(1, np.int64)), hashes, out, np.zeros(1, np.int64))[0]
        == PRESENT
    )
    assert (out.ids == 0).all()
    assert np.isnan(out.values).all()


def test_a_view_is_packed_from_its_columns_of_the_entitys_block() -> None:
    encoder = Encoder(EXAMPLE, Entity.USER)
    whole = a_block(3, RowFormat(EXAMPLE, EXAMPLE.view("user_profile")))
    block = Block(
        np.arange(3 * encoder.layout.num_ids, dtype=np.int32).reshape(3, -1), np.ones((3, 1), np.float32)
    )
    row = RowFormat(EXAMPLE, EXAMPLE.view("user_history"))
    part = Block(block.ids[:, 3:], block.values[:, :0])
    hashes = hashes_of(3)
    packed = row.pack(part, hashes, np.zeros(3, np.int64))
    out = Block(np.zeros_like(block.ids), whole.values)
    row.unpack(packed, hashes, Block(out.ids[:, 3:], out.values[:, :0]), np.zeros(3, np.int64))
    np.testing.assert_array_equal(out.ids[:, 3:], block.ids[:, 3:])
    assert (out.ids[:, :3] == 0).all()


def test_rows_of_several_states_keep_their_places() -> None:
    row = format_of(3, 2)
    hashes = hashes_of(6)
    packed: list[bytes | None] = list(row.pack(a_block(6, row), hashes, np.arange(6)))
    good = a_block(6, row)
    packed[1] = None
    packed[2] = packed[2][:-1] if packed[2] else None
    packed[4] = packed[5]
    out, times = emptied(6, row), np.full(6, -7, np.int64)
    statuses = row.unpack(packed, hashes, out, times)
    assert statuses.tolist() == [PRESENT, NOT_FOUND, CORRUPT, PRESENT, FOREIGN, PRESENT]
    np.testing.assert_array_equal(out.ids[[0, 3, 5]], good.ids[[0, 3, 5]])
    assert (out.ids[[1, 2, 4]] == -7).all()
    assert times.tolist() == [0, -7, -7, 3, -7, 5]


@pytest.mark.parametrize("packed", [[], [None], [None, None]])
def test_nothing_found_is_no_special_case(packed: list[None]) -> None:
    row = format_of(2, 2)
    assert status_of(row, list(packed), hashes_of(len(packed))) == [NOT_FOUND] * len(packed)


def test_the_golden_rows_never_change() -> None:
    schema = load_schema(GOLDEN / "schema.yaml")
    golden = json.loads((GOLDEN / "rows.json").read_text(encoding="utf-8"))
    for vector in golden:
        view = schema.view(vector["view"])
        row = RowFormat(schema, view)
        values = [np.nan if v is None else v for v in vector["values"]]
        block = Block(np.array([vector["ids"]], np.int32), np.array([values], np.float32).reshape(1, -1))
        hashes, times = entity_hashes(view, [vector["id"]]), np.array([vector["event_time_ms"]])
        (packed,) = row.pack(block, hashes, times)
        assert packed.hex() == vector["row"]
        out, out_times = emptied(1, row), np.zeros(1, np.int64)
        assert row.unpack([bytes.fromhex(vector["row"])], hashes, out, out_times).tolist() == [PRESENT]
        np.testing.assert_array_equal(out.ids, block.ids)
        np.testing.assert_array_equal(out.values, block.values)
        assert out_times.tolist() == times.tolist()


# what was damaged is never read


@pytest.mark.fault("B3")
@pytest.mark.parametrize(("num_ids", "num_values"), [(1, 0), (0, 1), (4, 2), (30, 10)])
def test_a_row_cut_at_any_length_is_corrupt(num_ids: int, num_values: int) -> None:
    row = format_of(num_ids, num_values)
    (whole,) = row.pack(a_block(1, row), hashes_of(1), np.zeros(1, np.int64))
    cut: list[bytes | None] = [whole[:n] for n in range(len(whole))]
    same = np.repeat(hashes_of(1), len(cut))
    assert status_of(row, cut, same) == [CORRUPT] * len(cut)
    for short in cut:
        assert status_of(row, [short], hashes_of(1)) == [CORRUPT]


@given(st.lists(st.none() | st.binary(max_size=200), max_size=8))
@settings(deadline=None)
@pytest.mark.fault("B3")
def test_arbitrary_bytes_are_never_read_as_a_row(values: list[bytes | None]) -> None:
    statuses = status_of(format_of(4, 2), values, hashes_of(len(values)))
    assert all((s == NOT_FOUND) == (v is None) for s, v in zip(statuses, values, strict=True))
    assert PRESENT not in statuses


@pytest.mark.fault("A17")
def test_a_value_of_64_megabytes_is_refused_by_its_length() -> None:
    row = format_of(4, 2)
    packed: list[bytes | None] = list(row.pack(a_block(2, row), hashes_of(2), np.zeros(2, np.int64)))
    packed[0] = bytes(64 << 20)
    assert status_of(row, packed, hashes_of(2)) == [CORRUPT, PRESENT]


@pytest.mark.fault("B4")
def test_every_flip_of_one_or_two_bits_of_a_64_byte_row_is_caught() -> None:
    row = format_of(4, 2)
    assert row.row_bytes == 64
    (whole,) = row.pack(a_block(1, row), hashes_of(1), np.array([1_700_000_000_000]))
    bits = np.unpackbits(np.frombuffer(whole, np.uint8))
    singles = [(i, i) for i in range(bits.size)]
    doubles = list(itertools.combinations(range(bits.size), 2))
    for start in range(0, len(singles + doubles), 32_768):
        flips = np.array((singles + doubles)[start : start + 32_768])
        flipped = np.tile(bits, (len(flips), 1))
        rows = np.arange(len(flips))
        flipped[rows, flips[:, 0]] ^= 1
        two = flips[:, 0] != flips[:, 1]
        flipped[rows[two], flips[two, 1]] ^= 1
        packed: list[bytes | None] = [r.tobytes() for r in np.packbits(flipped, axis=1)]
        assert set(status_of(row, packed, np.repeat(hashes_of(1), len(packed)))) == {CORRUPT}


@pytest.mark.fault("B4")
def test_no_two_weights_of_an_ordinary_row_cancel_out() -> None:
    row = format_of(400, 100)
    assert row._weights[-2:].tolist() == [0, 0], "the checksum itself"
    weights = row._weights[:-2] % np.uint64(2**33)
    both = np.concatenate([weights, (np.uint64(2**33) - weights), np.array([1, 2**33 - 1], np.uint64)])
    assert len(np.unique(both)) == len(both)
    assert (weights % np.uint64(2) == 1).all()


@pytest.mark.fault("B5")
def test_a_row_with_another_magic_is_corrupt_and_of_another_format_a_mismatch() -> None:
    row = format_of(4, 2)
    (whole,) = row.pack(a_block(1, row), hashes_of(1), np.zeros(1, np.int64))
    assert whole[:6] == b"RKDF" + FORMAT.to_bytes(2, "little")
    assert status_of(row, [resealed(row, whole, 0, b"RKDG")], hashes_of(1)) == [CORRUPT]
    for other in (0, FORMAT + 1, 0xFFFF):
        changed = resealed(row, whole, 4, other.to_bytes(2, "little"))
        assert status_of(row, [changed], hashes_of(1)) == [MISMATCH]


@pytest.mark.fault("B6")
def test_a_row_of_another_schema_is_a_mismatch_even_where_its_length_fits() -> None:
    row, other = format_of(4, 2), format_of(5, 1)
    assert row.row_bytes == other.row_bytes
    hashes = hashes_of(1)
    packed = other.pack(a_block(1, other), hashes, np.zeros(1, np.int64))
    assert status_of(row, [*packed], hashes) == [MISMATCH]


@pytest.mark.fault("B7")
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_a_row_with_an_infinite_number_is_corrupt(value: float) -> None:
    row = format_of(1, 2)
    block = Block(np.ones((1, 1), np.int32), np.array([[0.5, value]], np.float32))
    assert status_of(row, [*row.pack(block, hashes_of(1), np.zeros(1, np.int64))], hashes_of(1)) == [CORRUPT]


@pytest.mark.fault("B12")
def test_a_row_of_another_entity_is_foreign() -> None:
    view = EXAMPLE.view("user_history")
    row = RowFormat(EXAMPLE, view)
    mine, other = entity_hashes(view, ["7"]), entity_hashes(view, ["8"])
    packed = row.pack(a_block(1, row), other, np.zeros(1, np.int64))
    assert status_of(row, [*packed], mine) == [FOREIGN]
    assert status_of(row, [*packed], other) == [PRESENT]


@pytest.mark.fault("B13")
def test_a_row_is_one_value_so_a_torn_one_is_corrupt() -> None:
    row, hashes = format_of(20, 4), hashes_of(1)
    (old,) = row.pack(a_block(1, row, seed=1), hashes, np.array([1]))
    (new,) = row.pack(a_block(1, row, seed=2), hashes, np.array([2]))
    same = {n for n in range(len(old) + 1) if new[:n] + old[n:] in (old, new)}
    torn: list[bytes | None] = [new[:n] + old[n:] for n in range(len(old)) if n not in same]
    assert len(torn) > 50
    assert status_of(row, torn, np.repeat(hashes, len(torn))) == [CORRUPT] * len(torn)


def test_the_largest_row_the_schema_allows_can_be_packed() -> None:
    text = WIDE.format(fields="      - {name: s, kind: sequence, dtype: int64, hash: 9, max_length: 131060}")
    schema = parse_schema(text)
    row = RowFormat(schema, schema.view("users"))
    (packed,) = row.pack(a_block(1, row), hashes_of(1), np.zeros(1, np.int64))
    assert status_of(row, [packed], hashes_of(1)) == [PRESENT]
