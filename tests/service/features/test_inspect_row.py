from __future__ import annotations

from typing import Any

import pytest

from rankd_contract.schema_file import parse_schema
from rankd_service.features.inspect_row import RowReport, inspect_row
from tests.support.bundles import SCHEMA_TEXT, rows

SCHEMA = parse_schema(SCHEMA_TEXT)
ITEM = SCHEMA.view("item")
NOW_S = 1_800_000_000.0
DAY_S = 86_400.0


def a_row(event_time_s: float = NOW_S - 60) -> bytes:
    columns: dict[str, list[Any]] = {"item_id": ["7"], "genre": ["crime"], "price": [None], "year": [1985]}
    (row,) = rows(SCHEMA, "item", columns, event_time_s).values()
    return row


def seen(row: bytes | None, entity_id: str = "7") -> RowReport:
    return inspect_row(SCHEMA, ITEM, entity_id, row, "rankd", NOW_S)


def test_values_are_shown_as_they_were_as_far_as_a_row_still_knows() -> None:
    report = seen(a_row())
    assert (report.status, report.action) == ("PRESENT", "used")
    assert report.age_s == pytest.approx(60)
    assert report.bytes == len(a_row())
    assert report.key.startswith("rankd:item:")
    by_name = {value.field: value for value in report.values}
    assert by_name["genre"].stored == "crime"
    assert by_name["year"].stored == "1980 to 1990"
    assert str(by_name["item_id"].stored).startswith("bucket ")
    assert (by_name["price"].status, by_name["price"].stored, by_name["price"].read_as) == (
        "NULL_VALUE",
        None,
        0.5,
    )


def test_a_row_that_is_too_old_says_what_is_read_in_its_place() -> None:
    report = seen(a_row(NOW_S - 31 * DAY_S))
    assert (report.status, report.action) == ("OUTSIDE_MAX_AGE", "every field reads its default")
    assert report.age_s == pytest.approx(31 * DAY_S)


@pytest.mark.parametrize(
    ("row", "entity_id", "status"),
    [
        (None, "7", "NOT_FOUND"),
        (a_row()[:-1], "7", "CORRUPT"),
        (a_row(), "8", "FOREIGN"),
        (a_row()[:4] + b"\xff\xff" + a_row()[6:], "7", "CORRUPT"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_and_not_decoded(
    row: bytes | None, entity_id: str, status: str
) -> None:
    report = seen(row, entity_id)
    assert (report.status, report.values, report.age_s) == (status, (), None)
