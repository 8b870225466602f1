"""What does not fit its field is refused by field and row, and never repeated in the message."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rankd_contract.columns import Column
from rankd_contract.encoding import Encoder
from rankd_contract.errors import SchemaMismatch, ValueTypeError
from rankd_contract.hashing import MAX_STRING_BYTES
from rankd_contract.schema import Entity
from tests.contract.one_field import encode, one
from tests.support.example_schema import EXAMPLE

AT_MOST = f"at most {MAX_STRING_BYTES} bytes"
TOO_LONG = "x" * (MAX_STRING_BYTES + 1)


def test_two_values_of_a_vocabulary_with_one_hash_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    constant = lambda values, seed=0: np.zeros(len(values), np.uint64)  # noqa: E731
    monkeypatch.setattr("rankd_contract.encoding.hash_strings", constant)
    with pytest.raises(SchemaMismatch, match=r"'gender': two values .* share a 64-bit hash"):
        Encoder(EXAMPLE, Entity.USER)


@pytest.mark.parametrize(
    ("name", "rows", "row", "expected"),
    [
        ("age", [1, "2"], 1, "float32"),
        ("age", [True], 0, "float32"),
        ("age", [1.0, 10**400], 1, "a finite float32"),
        ("age", [1.0, 2.0, 1e300], 2, "a finite float32"),
        ("age", [float("inf")], 0, "a finite float32"),
        ("age", [-float("inf")], 0, "a finite float32"),
        ("visits", [1.0, 1.5], 1, "int64"),
        ("visits", [1, None, True], 2, "int64"),
        ("visits", [2**63], 0, "a 64-bit integer"),
        ("visits", [-(2**63) - 1], 0, "a 64-bit integer"),
        ("member", [1], 0, "bool"),
        ("gender", ["F", 3], 1, "string"),
        ("gender", ["F", "x\ud800"], 1, "text that UTF-8 can write"),
        ("gender", ["F", TOO_LONG], 1, AT_MOST),
        ("recent", [[1], 2], 1, "a list of int64"),
        ("recent", ["12"], 0, "a list of int64"),
        ("recent", [{"a": 1}], 0, "a list of int64"),
        ("recent", [[], [1, None]], 1, "int64"),
        ("recent", [[1], [], [2, 2**64]], 2, "a 64-bit integer"),
        ("tags", [["a"], ["b", "\udfff"]], 1, "text that UTF-8 can write"),
        ("tags", [[], ["a", "é" * MAX_STRING_BYTES]], 1, AT_MOST),
    ],
)
def test_a_json_value_that_does_not_fit_is_named_by_field_and_row(
    name: str, rows: list[Any], row: int, expected: str
) -> None:
    with pytest.raises(ValueTypeError) as refused:
        Column.from_python(rows, EXAMPLE.fields[name])
    assert (refused.value.field, refused.value.row, refused.value.expected) == (name, row, expected)


def test_the_longest_string_still_fits() -> None:
    longest = "x" * MAX_STRING_BYTES
    assert len(Column.from_python([longest], EXAMPLE.fields["title"])) == 1
    assert len(Column.from_arrow(pa.array([longest]), EXAMPLE.fields["title"])) == 1


@pytest.mark.parametrize(
    ("name", "array", "row", "expected"),
    [
        ("age", pa.array(["1"]), 0, "a column of float32"),
        ("age", pa.array([1.0, None, 1e300]), 2, "a finite float32"),
        ("age", pa.array([1.0, float("inf")]), 1, "a finite float32"),
        ("age", pa.array([1, float("-inf")], pa.float32()), 1, "a finite float32"),
        ("visits", pa.array([1.0, None, 2.5]), 2, "a whole number"),
        ("visits", pa.array([1.0, float("inf")]), 1, "a whole number"),
        ("visits", pa.array([2.0**53 - 1, 2.0**53]), 1, "a whole number"),
        ("visits", pa.array([2.0**24], pa.float32()), 0, "a whole number"),
        ("visits", pa.array([1], pa.uint64()), 0, "a column of int64"),
        ("visits", pa.array([0], pa.timestamp("s")), 0, "a column of int64"),
        ("visits", pa.array([None], pa.null()), 0, "a column of int64"),
        ("gender", pa.array([1]), 0, "a column of string"),
        ("gender", pa.array([b"F"]), 0, "a column of string"),
        ("gender", pa.array(["F"], pa.string_view()), 0, "a column of string"),
        ("title", pa.array(["a", None, TOO_LONG]), 2, AT_MOST),
        ("recent", pa.array([1]), 0, "a list of int64"),
        ("recent", pa.array([[1.0]]), 0, "lists of int64"),
        ("recent", pa.array([[1, 2]], pa.list_(pa.int64(), 2)), 0, "a list of int64"),
        ("recent", pa.array([[1], [2, 3]], pa.list_view(pa.int64())), 0, "a list of int64"),
        ("recent", pa.array([[1], [], [2, None]]), 2, "a list without nulls"),
        ("recent", pa.array([[9, 9], [1], [], [2, None]]).slice(1), 2, "a list without nulls"),
        ("tags", pa.array([["a"], [], [TOO_LONG]]), 2, AT_MOST),
    ],
)  # fmt: skip
def test_an_arrow_value_that_does_not_fit_is_named_by_field_and_row(
    name: str, array: Any, row: int, expected: str
) -> None:
    with pytest.raises(ValueTypeError) as refused:
        Column.from_arrow(array, EXAMPLE.fields[name])
    assert (refused.value.field, refused.value.row, refused.value.expected) == (name, row, expected)


def test_a_time_that_is_no_seconds_is_refused_offline_and_online() -> None:
    field = one("{name: hour, source: at, kind: categorical, derive: hour_of_day}").fields["hour"]
    last = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())
    for values in ([0, None, last + 1], [1, 2, 1_700_000_000_000]):
        for column in (Column.from_python, lambda rows, of: Column.from_arrow(pa.array(rows), of)):
            with pytest.raises(ValueTypeError, match=r"row 2.*seconds.*milliseconds"):
                column(values, field)
    with pytest.raises(
        ValueTypeError, match="a column of timestamps, or of whole seconds since 1970, got string"
    ):
        Column.from_arrow(pa.array(["2026-01-01"]), field)
    assert len(Column.from_python([last], field)) == 1


def test_decimals_are_numbers() -> None:
    decimals = pa.array([Decimal("1.25"), None, Decimal("-3.50")], pa.decimal128(9, 2))
    floats = pa.array([1.25, None, -3.5])
    of = EXAMPLE.fields["age"]
    found, expected = Column.from_arrow(decimals, of), Column.from_arrow(floats, of)
    assert (found.valid == expected.valid).all()
    np.testing.assert_array_equal(found.values, expected.values)


def test_a_number_that_a_transform_drives_out_of_range_is_named() -> None:
    schema = one("{name: x, kind: numeric, dtype: float32, default: 0, transform: "
                 "{standard: {mean: 0, std: 1.0e-30}}}")  # fmt: skip
    with pytest.raises(ValueTypeError) as refused:
        encode(schema, "x", Column.from_python([1.0, 1e30], schema.fields["x"]))
    assert (refused.value.field, refused.value.row) == ("x", 1)


def test_a_message_holds_no_value() -> None:
    for rows in (["secret"], [[1, "secret"]]):
        with pytest.raises(ValueTypeError) as refused:
            Column.from_python(rows, EXAMPLE.fields["recent"])
        assert "secret" not in str(refused.value)
