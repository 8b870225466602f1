from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankd_contract.columns import Column
from rankd_contract.encoding import Block, Encoder
from rankd_contract.errors import SchemaMismatch, ValueTypeError
from rankd_contract.keys import entity_hashes, key_prefix
from rankd_contract.packing import FeatureStatus, RowFormat
from rankd_contract.schema import Entity
from rankd_service.errors import StartupFailed
from rankd_service.features.importer import import_rows
from tests.service.features.example_items import NOON_S, import_items, items, written
from tests.support.example_schema import EXAMPLE
from tests.support.valkey import Valkey

pytestmark = pytest.mark.redis

ITEMS = EXAMPLE.view("item_profile")
HISTORY = EXAMPLE.view("user_history")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def server(running: Valkey) -> Valkey:
    with running.client() as client:
        client.flushall()
    return running


def histories(n: int, **columns: Any) -> dict[str, Any]:
    """Columns of n users' histories."""
    return {
        "user_id": pa.array([f"u{i}" for i in range(n)]),
        "recent": pa.array([[i] for i in range(n)]),
        "tags": pa.array([["a"]] * n),
        "event_time": pa.array([NOON_S] * n),
        **columns,
    }


def stored(server: Valkey, ids: list[str]) -> tuple[Block, list[int], list[int]]:
    """Read items as the service does -> block, event times, statuses."""
    row, layout = RowFormat(EXAMPLE, ITEMS), EXAMPLE.layout(Entity.ITEM)
    prefix = key_prefix("rankd", EXAMPLE, ITEMS)
    with server.client() as client:
        found = client.mget([prefix + i for i in ids])
    out, times = Block.empty(len(ids), layout), np.zeros(len(ids), np.int64)
    statuses = row.unpack(found, entity_hashes(ITEMS, ids), out, times)
    return out, times.tolist(), statuses.tolist()


def test_imported_rows_are_what_the_service_would_encode_itself(server: Valkey, tmp_path: Path) -> None:
    report = import_items(tmp_path, server.url, items(500))
    ids = [str(100 + i) for i in range(500)]
    block, times, statuses = stored(server, ids)
    assert set(statuses) == {FeatureStatus.PRESENT}
    assert times == [1000 * (NOON_S + i) for i in range(500)]
    encoder = Encoder(EXAMPLE, Entity.ITEM)
    online = {
        "item_id": Column.from_python([int(i) for i in ids], EXAMPLE.fields["item"]),
        "title": Column.from_python([f"title {i}" for i in range(500)], EXAMPLE.fields["title"]),
        "price": Column.from_python([0.5 * i for i in range(500)], EXAMPLE.fields["price"]),
        "stock": Column.from_python(list(range(500)), EXAMPLE.fields["stock"]),
    }
    expected = encoder.encode(online, 500)
    np.testing.assert_array_equal(block.ids, expected.ids)
    np.testing.assert_array_equal(block.values, expected.values)
    assert (report.rows, report.bytes) == (500, 500 * RowFormat(EXAMPLE, ITEMS).row_bytes)
    assert report.rows_per_s == pytest.approx(500 / report.seconds)
    assert asdict(report)["nulls"] == {"item": 0, "title": 0, "price": 0, "stock": 0}


def test_a_second_view_of_an_entity_is_imported_alone(server: Valkey, tmp_path: Path) -> None:
    columns = {
        "user_id": pa.array(["u1", "u2"]),
        "recent": pa.array([[3, 1, 4, 1, 5], None]),
        "tags": pa.array([[], ["a", "b"]]),
        "event_time": pa.array([NOON_S, NOON_S]),
    }
    report = import_rows(written(tmp_path, columns), EXAMPLE, HISTORY, server.url)
    assert report.nulls == {"recent": 1, "tags": 0}
    row = RowFormat(EXAMPLE, HISTORY)
    with server.client() as client:
        found = client.mget([key_prefix("rankd", EXAMPLE, HISTORY) + u for u in ("u1", "u2")])
    out = Block(np.zeros((2, 7), np.int32), np.zeros((2, 0), np.float32))
    statuses = row.unpack(found, entity_hashes(HISTORY, ["u1", "u2"]), out, np.zeros(2, np.int64))
    assert statuses.tolist() == [FeatureStatus.PRESENT] * 2
    encoder = Encoder(EXAMPLE, Entity.USER)
    whole = Block.empty(2, encoder.layout)
    for name, rows in (("recent", [[3, 1, 4, 1], []]), ("tags", [[], ["a", "b"]])):
        encoder.encode_field(
            encoder.by_name[name], Column.from_python(rows, EXAMPLE.fields[name]), whole, slice(None)
        )
    np.testing.assert_array_equal(out.ids, whole.ids[:, 3:])


@pytest.mark.parametrize("batch_rows", [1, 7, 100, 10_000])
@pytest.mark.parametrize("row_group_size", [5, 64, 5000])
def test_batches_and_row_groups_do_not_show(
    batch_rows: int, row_group_size: int, server: Valkey, tmp_path: Path
) -> None:
    path = written(tmp_path, items(100), row_group_size=row_group_size)
    seen: list[tuple[int, int]] = []
    import_rows(
        path, EXAMPLE, ITEMS, server.url, batch_rows=batch_rows, progress=lambda *done: seen.append(done)
    )
    block, times, statuses = stored(server, [str(100 + i) for i in range(100)])
    assert set(statuses) == {FeatureStatus.PRESENT}
    assert block.values[:, 1].tolist() == list(range(100))
    assert times == [1000 * (NOON_S + i) for i in range(100)]
    assert seen[-1] == (100, 100)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_more_rows_than_one_command_takes_are_all_written(server: Valkey, tmp_path: Path) -> None:
    import_items(tmp_path, server.url, items(5000))
    with server.client() as client:
        assert client.dbsize() == 5000


def test_an_import_replaces_rows_and_leaves_others(server: Valkey, tmp_path: Path) -> None:
    import_items(tmp_path, server.url, items(3))
    import_items(tmp_path, server.url, items(2, stock=pa.array([70, 80])))
    block, _, _ = stored(server, ["100", "101", "102"])
    assert block.values[:, 1].tolist() == [70, 80, 2]


def test_no_rows_are_an_import_of_none(server: Valkey, tmp_path: Path) -> None:
    empty = pa.table(items(1)).slice(0, 0)
    path = tmp_path / "empty.parquet"
    pq.write_table(empty, path)
    assert import_rows(path, EXAMPLE, ITEMS, server.url).rows == 0


def test_rows_live_for_ever_or_as_long_as_told(server: Valkey, tmp_path: Path) -> None:
    key = key_prefix("rankd", EXAMPLE, ITEMS) + "100"
    with server.client() as client:
        import_items(tmp_path, server.url, items(3))
        assert client.pttl(key) == -1
        import_items(tmp_path, server.url, items(3), ttl_s=60.5)
        assert 50_000 < client.pttl(key) <= 60_500
        assert stored(server, ["100"])[2] == [FeatureStatus.PRESENT]


def test_the_namespace_is_the_first_part_of_every_key(server: Valkey, tmp_path: Path) -> None:
    import_items(tmp_path, server.url, items(3), namespace="shop")
    with server.client() as client:
        prefix = key_prefix("shop", EXAMPLE, ITEMS)
        assert sorted(client.keys()) == [f"{prefix}{100 + i}".encode() for i in range(3)]


def test_nulls_and_nan_are_counted_by_field_and_stored_as_missing(server: Valkey, tmp_path: Path) -> None:
    columns = items(
        4,
        title=pa.array(["a", None, None, "b"]),
        price=pa.array([1.0, None, math.nan, 2.0]),
        stock=pa.array([1, 2, 3, None]),
    )
    report = import_items(tmp_path, server.url, columns)
    assert report.nulls == {"item": 0, "title": 2, "price": 2, "stock": 1}
    block, _, _ = stored(server, ["100", "101", "102", "103"])
    assert np.isnan(block.values[:, 0]).tolist() == [False, True, True, False]
    assert (block.ids[:, 1] == 0).tolist() == [False, True, True, False]


IDS: dict[str, tuple[Any, list[str]]] = {
    "negative integers": (pa.array([-1, 0, 2**40]), ["-1", "0", str(2**40)]),
    "narrow integers": (pa.array([1, 2, 3], pa.int16()), ["1", "2", "3"]),
    "large unsigned": (pa.array([2**64 - 1, 1, 2], pa.uint64()), [str(2**64 - 1), "1", "2"]),
    "whole numbers stored as floats": (pa.array([1.0, -2.0, 2.0**52]), ["1", "-2", str(2**52)]),
    "strings": (pa.array(["a", "ключ", "x" * 128]), ["a", "ключ", "x" * 128]),
    "large strings": (pa.array(["a", "b", "c"], pa.large_string()), ["a", "b", "c"]),
    "a dictionary": (pa.array(["a", "b", "c"]).dictionary_encode(), ["a", "b", "c"]),
}


@pytest.mark.parametrize("what", list(IDS))
def test_ids_of_either_kind_become_strings(what: str, server: Valkey, tmp_path: Path) -> None:
    column, ids = IDS[what]
    import_rows(written(tmp_path, histories(3, user_id=column)), EXAMPLE, HISTORY, server.url)
    prefix = key_prefix("rankd", EXAMPLE, HISTORY)
    with server.client() as client:
        found = client.mget([prefix + i for i in ids])
    row, out = RowFormat(EXAMPLE, HISTORY), Block(np.zeros((3, 7), np.int32), np.zeros((3, 0), np.float32))
    statuses = row.unpack(found, entity_hashes(HISTORY, ids), out, np.zeros(3, np.int64))
    assert statuses.tolist() == [FeatureStatus.PRESENT] * 3


MOMENT = datetime(2026, 11, 22, 10, 30, 15, 250_000, tzinfo=UTC)
MOMENT_MS = int(MOMENT.timestamp() * 1000)
TIMES: dict[str, tuple[Any, int]] = {
    "seconds": (pa.array([MOMENT_MS // 1000]), MOMENT_MS // 1000 * 1000),
    "1970": (pa.array([0]), 0),
    "1970 in ns": (pa.array([0], pa.timestamp("ns")), 0),
    "9999": (pa.array([253_402_300_799]), 253_402_300_799_000),
    "9999 in us": (pa.array([253_402_300_799_999_999], pa.timestamp("us")), 253_402_300_799_999),
    "the last ns": (pa.array([2**63 - 1], pa.timestamp("ns")), (2**63 - 1) // 10**6),
    "unsigned": (pa.array([MOMENT_MS // 1000], pa.uint64()), MOMENT_MS // 1000 * 1000),
    "narrow": (pa.array([MOMENT_MS // 1000], pa.int32()), MOMENT_MS // 1000 * 1000),
    "timestamp s": (pa.array([MOMENT.replace(microsecond=0)], pa.timestamp("s")), MOMENT_MS // 1000 * 1000),
    "timestamp ms": (pa.array([MOMENT], pa.timestamp("ms")), MOMENT_MS),
    "timestamp us with zone": (pa.array([MOMENT], pa.timestamp("us", "Asia/Tokyo")), MOMENT_MS),
    "timestamp ns": (pa.array([MOMENT_MS * 10**6 + 999_999], pa.timestamp("ns")), MOMENT_MS),
}


@pytest.mark.parametrize("what", list(TIMES))
def test_event_times_of_any_unit_become_milliseconds(what: str, server: Valkey, tmp_path: Path) -> None:
    column, expected = TIMES[what]
    import_items(tmp_path, server.url, items(1, event_time=column))
    assert stored(server, ["100"])[1] == [expected]


WRONG: dict[str, tuple[dict[str, Any], str, int, str]] = {
    "null id": ({"item_id": pa.array([1, None, 3])}, "item_id", 1, "an id, got null"),
    "duplicate id": ({"item_id": pa.array([5, 7, 5])}, "item_id", 2, "no other row has, got the id of row 0"),
    "empty id": ({"user_id": pa.array(["1", "", "3"])}, "user_id", 1, "an id of 1 to 128 bytes, got 0 bytes"),
    "long id": ({"user_id": pa.array(["1", "2", "é" * 65])}, "user_id", 2, "1 to 128 bytes, got 130 bytes"),
    "fraction": ({"item_id": pa.array([1.0, 2.0, 3.5])}, "item_id", 2, "a whole number, got a fraction"),
    "NaN id": ({"item_id": pa.array([1.0, float("nan"), 3.0])}, "item_id", 1, "an id, got null"),
    "decimal": ({"item_id": pa.array([1, 2, 3]).cast(pa.decimal128(20, 1))}, "item_id", 0, "integers or str"),
    "null time": ({"event_time": pa.array([1, 2, None])}, "event_time", 2, "a time, got null"),
    "milliseconds": ({"event_time": pa.array([1, NOON_S * 1000, 2])}, "event_time", 1, "finer unit"),
    "text time": (
        {"event_time": pa.array(["1", "2", "3"])},
        "event_time",
        0,
        "whole seconds since 1970, got str",
    ),
    "wrong type": ({"price": pa.array(["1", "2", "3"])}, "price", 0, "a column of float32, got string"),
    "infinite": ({"price": pa.array([1.0, 2.0, math.inf])}, "price", 2, "a finite float32"),
    "long text": (
        {"title": pa.array(["a", "b" * 2000, "c"])},
        "title",
        1,
        "at most 1024 bytes, got 2000 bytes",
    ),
}


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
@pytest.mark.parametrize("what", list(WRONG))
def test_a_value_that_does_not_fit_is_named_by_its_row_in_the_file(
    what: str, batch_rows: int, server: Valkey, tmp_path: Path
) -> None:
    columns, name, row, says = WRONG[what]
    frame, view = (histories(3, **columns), HISTORY) if name == "user_id" else (items(3, **columns), ITEMS)
    with pytest.raises(ValueTypeError) as refused:
        import_rows(written(tmp_path, frame), EXAMPLE, view, server.url, batch_rows=batch_rows)
    assert (refused.value.field, refused.value.row) == (name, row)
    assert says in str(refused.value)
    assert str(refused.value).startswith(f"{tmp_path / 'rows.parquet'}: field '{name}', row {row}: ")


ABSURD: dict[str, tuple[Any, str]] = {
    "int64 minimum": (pa.array([1, -(2**63)]), "a time before 1970"),
    "int64 maximum": (pa.array([1, 2**63 - 1]), "a time after 9999"),
    "uint64 maximum": (pa.array([1, 2**64 - 1], pa.uint64()), "a time after 9999"),
    "a second before 1970": (pa.array([1, -1]), "a time before 1970"),
    "a second after 9999": (pa.array([1, 253_402_300_800]), "a time after 9999"),
    **{
        f"{sign} in {unit}": (pa.array([1, number], pa.timestamp(unit)), f"a time {sign}")
        for unit in ("ms", "us")
        for sign, number in (("before 1970", -(2**63)), ("after 9999", 2**63 - 1))
    },
    "before 1970 in ns": (pa.array([1, -1], pa.timestamp("ns")), "a time before 1970"),
}


@pytest.mark.parametrize("what", list(ABSURD))
def test_an_absurd_time_is_refused_with_its_file_column_and_row_before_anything_is_written(
    what: str, server: Valkey, tmp_path: Path
) -> None:
    column, got = ABSURD[what]
    with pytest.raises(ValueTypeError) as refused:
        import_items(tmp_path, server.url, items(2, event_time=column), batch_rows=1)
    assert "rows.parquet: field 'event_time', row 1: expected a time from 1970 to 9999" in str(refused.value)
    assert got in str(refused.value)
    with server.client() as client:
        assert client.dbsize() == 0


@pytest.mark.parametrize("what", ["null id", "duplicate id", "null time", "wrong type"])
def test_what_can_be_checked_before_is_checked_before_anything_is_written(
    what: str, server: Valkey, tmp_path: Path
) -> None:
    with pytest.raises(ValueTypeError):
        import_items(tmp_path, server.url, items(3, **WRONG[what][0]), batch_rows=1)
    with server.client() as client:
        assert client.dbsize() == 0


def test_missing_columns_are_named_beside_those_there_are(server: Valkey, tmp_path: Path) -> None:
    with pytest.raises(SchemaMismatch) as refused:
        import_items(tmp_path, server.url, items(3, price=None, event_time=None, colour=pa.array([1, 2, 3])))
    says = "rows.parquet: view item_profile needs the columns event_time, price; the file has item_id, title,"
    assert says in str(refused.value)
    assert "colour" in str(refused.value)
    assert "set `event_time:` of view item_profile" in str(refused.value)
    with pytest.raises(SchemaMismatch) as refused:
        import_items(tmp_path, server.url, items(3, price=None))
    assert "event_time:" not in str(refused.value), "only the column that is absent is spoken of"


def test_a_file_that_is_no_parquet_is_refused(server: Valkey, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 not really")
    for path in (tmp_path / "x.parquet", tmp_path):
        with pytest.raises(StartupFailed, match="cannot be read as a Parquet file"):
            import_rows(path, EXAMPLE, ITEMS, server.url)
    with pytest.raises(StartupFailed, match=r"missing.parquet: there is no such file"):
        import_rows(tmp_path / "missing.parquet", EXAMPLE, ITEMS, server.url)


def test_two_columns_of_one_name_and_text_in_another_encoding_are_refused(
    server: Valkey, tmp_path: Path
) -> None:
    table = pa.table(items(3000))
    pq.write_table(table.append_column("title", table["title"]), tmp_path / "twice.parquet")
    with pytest.raises(SchemaMismatch, match=r"twice.parquet: 2 columns are called title; rename them"):
        import_rows(tmp_path / "twice.parquet", EXAMPLE, ITEMS, server.url)
    titles = [str(text).encode() for text in table["title"].to_pylist()]
    titles[2001] = "Köln".encode("latin-1")
    wrong = pa.Array.from_buffers(pa.string(), 3000, pa.array(titles, pa.binary()).buffers())
    path = written(tmp_path, items(3000, title=wrong), row_group_size=700)
    with pytest.raises(ValueTypeError, match=r"field 'title', row 2001: expected text in UTF-8"):
        import_rows(path, EXAMPLE, ITEMS, server.url, batch_rows=500)


def test_rows_dated_far_ahead_are_counted(server: Valkey, tmp_path: Path) -> None:
    times = pa.array([NOON_S, NOON_S + 86_400, NOON_S + 86_401])
    report = import_rows(
        written(tmp_path, items(3, event_time=times)), EXAMPLE, ITEMS, server.url, now_s=NOON_S
    )
    assert report.ahead == 1


def test_a_parquet_file_that_is_damaged_is_refused(server: Valkey, tmp_path: Path) -> None:
    path = written(tmp_path, items(5000))
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + b"\xff" * 64 + whole[68:])
    with pytest.raises(StartupFailed, match="the Parquet file is damaged"):
        import_rows(path, EXAMPLE, ITEMS, server.url)


def test_a_server_of_ones_own_is_not_told_to_save(server: Valkey, tmp_path: Path) -> None:
    import_items(tmp_path, server.url, items(3))
    with server.client() as client:
        assert "cmdstat_save" not in client.info("commandstats")
