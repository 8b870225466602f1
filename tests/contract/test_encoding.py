from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankd_contract.columns import Column
from rankd_contract.encoding import Block, Encoder
from rankd_contract.errors import SchemaMismatch
from rankd_contract.hashing import Strings, bucket, hash_ints, hash_strings, salt
from rankd_contract.schema import FIRST_VALUE, MISSING, UNKNOWN, DType, Entity, Field, Kind
from tests.contract.one_field import encode, one
from tests.support.example_schema import EXAMPLE

LAST_SECOND = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
RAW = {DType.INT: INT64, DType.FLOAT: FLOAT32, DType.STRING: TEXT, DType.BOOL: st.booleans()}
ARROW: dict[DType, list[pa.DataType]] = {
    DType.INT: [pa.int64()],
    DType.FLOAT: [pa.float32(), pa.float64()],
    DType.STRING: [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())],
    DType.BOOL: [pa.bool_()],
}


def ids(field: str, rows: Sequence[Any]) -> list[list[int]]:
    """Encode JSON rows of the field `x` -> its ids."""
    schema = one(field)
    found: list[list[int]] = encode(schema, "x", Column.from_python(rows, schema.fields["x"])).ids.tolist()
    return found


def numbers(field: str, rows: Sequence[Any]) -> list[float]:
    schema = one(field)
    block = encode(schema, "x", Column.from_python(rows, schema.fields["x"]))
    return [float(v) for v in block.values[:, 0]]


def assert_equal(left: Block, right: Block) -> None:
    assert left.ids.dtype == right.ids.dtype == np.int32
    assert left.values.dtype == right.values.dtype == np.float32
    np.testing.assert_array_equal(left.ids, right.ids)
    np.testing.assert_array_equal(left.values.view(np.uint32), right.values.view(np.uint32))


@st.composite
def rows_of(draw: st.DrawFn, field: Field) -> tuple[list[Any], Any]:
    """Draw JSON rows of a field and the Arrow array of the same rows: any fitting type, sliced or not."""
    value = RAW[field.dtype]
    if field.derive is not None:
        value = st.integers(-(2**40), LAST_SECOND)
    elif field.vocabulary is not None and field.dtype is not DType.BOOL:
        value = st.sampled_from(field.vocabulary) | value
    listed = field.kind in {Kind.SEQUENCE, Kind.MULTI_VALUE}
    drawn = st.lists(value, max_size=2 * field.max_length) if listed else value
    rows = draw(st.lists(st.none() | drawn, max_size=12))
    kind = draw(st.sampled_from(ARROW[field.dtype]))
    if listed:
        kind = draw(st.sampled_from([pa.list_(kind), pa.large_list(kind)]))
    before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    padding = draw(st.none() | drawn)
    array = pa.array([padding] * before + rows + [padding] * after, kind)
    return rows, array.slice(before, len(rows))


@pytest.mark.parametrize("name", list(EXAMPLE.fields))
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_parquet_column_and_a_json_list_of_the_same_values_encode_alike(
    name: str, data: st.DataObject
) -> None:
    (entity,) = {v.entity for v in EXAMPLE.views if name in {f.name for f in v.fields}}
    field = EXAMPLE.fields[name]
    rows, array = data.draw(rows_of(field))
    offline = encode(EXAMPLE, name, Column.from_arrow(array, field), entity)
    online = encode(EXAMPLE, name, Column.from_python(rows, field), entity)
    assert_equal(offline, online)


@pytest.mark.parametrize("kind", [pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint16(), pa.uint32()])
def test_narrow_integers_encode_as_wide_ones(kind: pa.DataType) -> None:
    field = EXAMPLE.fields["item"]
    rows = [1, None, 100]
    offline = encode(EXAMPLE, "item", Column.from_arrow(pa.array(rows, kind), field), Entity.ITEM)
    assert_equal(offline, encode(EXAMPLE, "item", Column.from_python(rows, field), Entity.ITEM))


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_whole_numbers_stored_as_floats_encode_as_the_integers_they_are(kind: pa.DataType) -> None:
    """As pandas writes integers where some are missing."""
    schema = one("{name: shop, kind: categorical, dtype: int64, hash: 1000}")
    integers = pa.array([0, 7, None, -3, 2047], pa.int64())
    floats = integers.cast(pa.float64()).cast(kind, safe=False)
    nan = pa.array([0.0, 7.0, float("nan"), -3.0, 2047.0]).cast(kind, safe=False)
    expected = encode(schema, "shop", Column.from_arrow(integers, schema.fields["shop"])).ids
    for array in (floats, nan, floats.slice(1), pa.array([], kind)):
        found = encode(schema, "shop", Column.from_arrow(array, schema.fields["shop"]))
        np.testing.assert_array_equal(found.ids, expected[len(expected) - len(array) :])


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e30, max_value=1e30), max_size=20)
)
@settings(deadline=None)
def test_a_float32_column_and_the_decimals_people_write_fall_into_the_same_buckets(rows: list[float]) -> None:
    edges = sorted({0.1, 0.3, 0.7, *rows})
    schema = one(f"{{name: x, kind: numeric, dtype: float32, transform: {{bucketize: {edges}}}}}")
    field = schema.fields["x"]
    narrow = encode(schema, "x", Column.from_arrow(pa.array([0.1, 0.3, 0.7, *rows], pa.float32()), field))
    wide = encode(schema, "x", Column.from_arrow(pa.array([0.1, 0.3, 0.7, *rows], pa.float64()), field))
    written = encode(schema, "x", Column.from_python([0.1, 0.3, 0.7, *rows], field))
    assert_equal(narrow, written)
    assert_equal(narrow, wide)


@given(st.lists(st.none() | FLOAT32, max_size=20))
@settings(deadline=None)
def test_transforms_give_the_same_bits_offline_and_online(rows: list[float | None]) -> None:
    schema = one("{name: x, kind: numeric, dtype: float32, default: 0, transform: "
                 "[log1p, {standard: {mean: 0.3, std: 0.7}}]}")  # fmt: skip
    field = schema.fields["x"]
    online = encode(schema, "x", Column.from_python(rows, field))
    for kind in (pa.float32(), pa.float64()):
        assert_equal(encode(schema, "x", Column.from_arrow(pa.array(rows, kind), field)), online)


# what becomes of a value


def test_a_word_of_the_vocabulary_has_its_place_in_it() -> None:
    field = "{name: x, kind: categorical, dtype: string, vocabulary: [red, green, blue]}"
    assert ids(field, ["red", "green", "blue", "pink", "", None, "Red"]) == [
        [2], [3], [4], [UNKNOWN], [UNKNOWN], [MISSING], [UNKNOWN],
    ]  # fmt: skip


def test_numbers_and_booleans_have_vocabularies_too() -> None:
    field = "{name: x, kind: categorical, dtype: int64, vocabulary: [7, -1, 0]}"
    assert ids(field, [7, -1, 0, 1, None]) == [[2], [3], [4], [UNKNOWN], [MISSING]]
    field = "{name: x, kind: categorical, dtype: bool, vocabulary: [true, false]}"
    assert ids(field, [True, False, None]) == [[2], [3], [MISSING]]


def test_a_hashed_value_falls_into_its_fields_buckets() -> None:
    field = "{name: x, kind: categorical, dtype: string, hash: 50}"
    expected = bucket(hash_strings(Strings.from_list(["a", "", "東京"]), salt("x")), 50) + FIRST_VALUE
    assert ids(field, ["a", "", "東京", None]) == [[i] for i in [*expected.tolist(), MISSING]]
    field = "{name: x, kind: categorical, dtype: int64, hash: 50}"
    expected = bucket(hash_ints(np.array([0, -5]), salt("x")), 50) + FIRST_VALUE
    assert ids(field, [0, -5, None]) == [[i] for i in [*expected.tolist(), MISSING]]


def test_a_users_recent_items_get_the_items_own_ids() -> None:
    items = encode(EXAMPLE, "item", Column.from_python([3, 1, 4], EXAMPLE.fields["item"]), Entity.ITEM)
    recent = encode(EXAMPLE, "recent", Column.from_python([[3, 1, 4]], EXAMPLE.fields["recent"]))
    assert recent.ids[0, 3:7].tolist() == [*items.ids[:, 0].tolist(), MISSING]


def test_a_list_keeps_its_newest_entries_and_is_padded() -> None:
    field = "{name: x, kind: sequence, dtype: int64, vocabulary: [1, 2, 3, 4, 5], max_length: 3}"
    rows = [[1, 2, 3, 4, 5], [5, 4], [], None, [9], [3, 3, 3]]
    assert ids(field, rows) == [[2, 3, 4], [6, 5, 0], [0, 0, 0], [0, 0, 0], [UNKNOWN, 0, 0], [4, 4, 4]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(-1e30, 2), (0.999, 2), (1, 3), (1.5, 3), (5, 4), (24.999, 4), (25, 5), (1e30, 5), (None, MISSING)],
)
def test_a_bucket_starts_at_its_edge(value: float | None, expected: int) -> None:
    field = "{name: x, kind: numeric, dtype: float32, transform: {bucketize: [1, 5, 25]}}"
    assert ids(field, [value]) == [[expected]]


def test_integers_are_bucketized_exactly() -> None:
    big = 2**53
    field = f"{{name: x, kind: numeric, dtype: int64, transform: {{bucketize: [0, {big}]}}}}"
    assert ids(field, [-1, 0, big - 1, big]) == [[2], [3], [3], [4]]


def test_log1p_keeps_the_sign_and_standard_shifts_and_scales() -> None:
    field = "{name: x, kind: numeric, dtype: float32, default: 0, transform: log1p}"
    assert numbers(field, [0, 1, -1]) == pytest.approx([0, np.log(2), -np.log(2)], rel=1e-6)
    field = "{name: x, kind: numeric, dtype: float32, default: 0, transform: {standard: {mean: 3, std: 2}}}"
    assert numbers(field, [3, 5, 0]) == [0, 1, -1.5]


@given(st.integers(-(2**40), LAST_SECOND))
@settings(deadline=None)
def test_hour_and_weekday_are_those_of_utc(seconds: int) -> None:
    hours = "{name: x, kind: categorical, derive: hour_of_day}"
    weekdays = "{name: x, kind: categorical, derive: day_of_week}"
    day, within = divmod(seconds, 86_400)
    assert ids(hours, [seconds]) == [[FIRST_VALUE + within // 3600]]
    assert ids(weekdays, [seconds]) == [[FIRST_VALUE + (day + 3) % 7]]


@pytest.mark.parametrize(
    "moment", [datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)]
)
def test_hour_and_weekday_agree_with_the_calendar(moment: datetime) -> None:
    seconds = int(moment.timestamp())
    assert ids("{name: x, kind: categorical, derive: hour_of_day}", [seconds]) == [[2 + moment.hour]]
    assert ids("{name: x, kind: categorical, derive: day_of_week}", [seconds]) == [[2 + moment.weekday()]]


# missing values and defaults


def test_missing_values_stay_visible_until_defaults_are_filled_in() -> None:
    encoder = Encoder(EXAMPLE, Entity.USER)
    block = Block.empty(2, encoder.layout)
    assert (block.ids == MISSING).all()
    assert np.isnan(block.values).all()
    filled = encoder.fill_defaults(block)
    assert np.isnan(block.values).all()
    assert filled.ids[0].tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 0]  # gender F; the others declare none
    assert filled.values[0, 0] == pytest.approx((np.log(31) - 3.5) / 0.5, rel=1e-6)
    assert filled.ids.dtype == np.int32
    assert filled.values.dtype == np.float32


def test_a_default_stands_for_nulls_only() -> None:
    encoder = Encoder(EXAMPLE, Entity.USER)
    block = encode(EXAMPLE, "gender", Column.from_python(["M", None, "other"], EXAMPLE.fields["gender"]))
    assert encoder.fill_defaults(block).ids[:, 0].tolist() == [3, 2, UNKNOWN]


def test_nothing_is_nan_after_defaults() -> None:
    for entity in Entity:
        encoder = Encoder(EXAMPLE, entity)
        assert not np.isnan(encoder.fill_defaults(Block.empty(3, encoder.layout)).values).any()


def test_the_default_of_a_derived_field_is_the_derived_value() -> None:
    schema = one("{name: x, kind: categorical, derive: hour_of_day, default: 12}")
    encoder = Encoder(schema, Entity.USER)
    assert encoder.fill_defaults(Block.empty(1, encoder.layout)).ids.tolist() == [[FIRST_VALUE + 12]]


def test_nan_in_a_column_is_a_missing_value() -> None:
    field = EXAMPLE.fields["price"]
    offline = encode(EXAMPLE, "price", Column.from_arrow(pa.array([float("nan"), None]), field), Entity.ITEM)
    assert np.isnan(offline.values[:, 0]).all()


def test_null_lists_with_hidden_entries_are_empty() -> None:
    hidden = pa.ListArray.from_arrays(
        pa.array([0, 2, 3], pa.int32()), pa.array([1, 2, 3]), mask=pa.array([True, False])
    )
    offline = encode(EXAMPLE, "recent", Column.from_arrow(hidden, EXAMPLE.fields["recent"]))
    online = encode(EXAMPLE, "recent", Column.from_python([None, [3]], EXAMPLE.fields["recent"]))
    assert_equal(offline, online)


# whole entities


def test_all_columns_of_an_entity_are_encoded_by_source() -> None:
    encoder = Encoder(EXAMPLE, Entity.ITEM)
    rows: dict[str, list[Any]] = {
        "item_id": [1, None],
        "title": ["A", "B"],
        "price": [2.5, None],
        "stock": [1, 2],
    }
    columns = {n: Column.from_python(rows[n], EXAMPLE.fields["item" if n == "item_id" else n]) for n in rows}
    block = encoder.encode(columns, 2)
    assert block.ids[1, 0] == MISSING
    assert block.ids[0, 0] >= FIRST_VALUE
    assert block.values[0].tolist() == [2.5, 1.0]
    assert block.ids.flags.c_contiguous
    assert block.values.flags.c_contiguous


def test_an_absent_column_is_named_beside_those_given() -> None:
    encoder = Encoder(EXAMPLE, Entity.ITEM)
    with pytest.raises(SchemaMismatch, match="item: no column item_id, price, stock; columns given: title"):
        encoder.encode({"title": Column.from_python(["a"], EXAMPLE.fields["title"])}, 1)


def test_chosen_rows_of_a_block_can_be_encoded_alone() -> None:
    encoder = Encoder(EXAMPLE, Entity.ITEM)
    block = Block.empty(4, encoder.layout)
    at, field = encoder.by_name["stock"], EXAMPLE.fields["stock"]
    encoder.encode_field(at, Column.from_python([5, 6], field), block, [3, 1])
    assert block.values[:, at.values].ravel().tolist()[1::2] == [6.0, 5.0]
    assert np.isnan(block.values[[0, 2]]).all()


# values that do not fit


def test_an_encoder_is_immutable_in_what_it_promises() -> None:
    encoder = Encoder(EXAMPLE, Entity.USER)
    with pytest.raises(dataclasses.FrozenInstanceError):
        encoder.layout.num_ids = 3  # type: ignore[misc]
