"""An import that was killed goes on where the store had acknowledged its rows, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankd_contract.keys import key_prefix
from rankd_service.features.importer import ImportReport, import_rows
from tests.support.example_schema import EXAMPLE
from tests.support.process import environment
from tests.support.valkey import Valkey

pytestmark = pytest.mark.redis

ITEMS = EXAMPLE.view("item_profile")
PREFIX = key_prefix("rankd", EXAMPLE, ITEMS)
ROWS, BATCH = 5000, 100

# Kills itself as soon as so many rows are sent; the replies to the last batch are then never read.
KILLED = f"""
import os, signal, sys
from pathlib import Path
from rankd_service.features.importer import import_rows
from tests.support.example_schema import EXAMPLE

def progress(done, rows):
    if done >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

import_rows(Path(sys.argv[1]), EXAMPLE, EXAMPLE.view("item_profile"), sys.argv[2],
            batch_rows={BATCH}, progress=progress)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path) as running:
        yield running


@pytest.fixture
def items(tmp_path: Path) -> Path:
    return written(tmp_path / "items.parquet", stock=1)


def written(path: Path, stock: int) -> Path:
    table = pa.table(
        {
            "item_id": pa.array(range(ROWS)),
            "title": pa.array([f"title {i}" for i in range(ROWS)]),
            "price": pa.array([0.5] * ROWS),
            "stock": pa.array([stock] * ROWS),
            "event_time": pa.array([1_800_000_000] * ROWS),
        }
    )
    pq.write_table(table, path, row_group_size=700)
    return path


def killed_after(rows: int, items: Path, url: str) -> None:
    command = [sys.executable, "-c", KILLED, str(items), url, str(rows)]
    done = subprocess.run(command, env=environment(), capture_output=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr


def go_on(items: Path, url: str, resume: bool = True) -> ImportReport:
    return import_rows(items, EXAMPLE, ITEMS, url, batch_rows=BATCH, resume=resume)


def num_rows(server: Valkey) -> int:
    with server.client() as client:
        return sum(1 for _ in client.scan_iter(f"{PREFIX}*", count=1000))


def test_an_import_that_was_killed_goes_on_behind_the_last_row_acknowledged(
    server: Valkey, items: Path
) -> None:
    killed_after(2000, items, server.url)
    acknowledged = 2000 - BATCH  # those of the last batch were sent, and nobody heard what became of them
    assert num_rows(server) >= acknowledged
    with server.client() as client:
        client.config_resetstat()
    report = go_on(items, server.url)
    assert (report.resumed_at, report.rows) == (acknowledged, ROWS)
    assert num_rows(server) == ROWS
    with server.client() as client:
        assert client.info("commandstats")["cmdstat_mset"]["calls"] == (ROWS - acknowledged) // BATCH
        assert not [key for key in client.scan_iter("*", count=1000) if not key.startswith(PREFIX.encode())]


def test_a_finished_import_is_no_reason_to_skip_a_row_of_the_next(server: Valkey, items: Path) -> None:
    go_on(items, server.url)
    assert go_on(items, server.url).resumed_at == 0


def test_rows_that_another_file_has_written_since_are_written_again(
    server: Valkey, items: Path, tmp_path: Path
) -> None:
    killed_after(2000, items, server.url)
    other = written(tmp_path / "other.parquet", stock=2)
    assert go_on(other, server.url).resumed_at == 0
    with server.client() as client:
        of_other = client.get(f"{PREFIX}0")
        assert go_on(items, server.url).resumed_at == 0
        assert client.get(f"{PREFIX}0") != of_other


def test_a_file_that_changed_is_another_file(server: Valkey, items: Path) -> None:
    killed_after(2000, items, server.url)
    written(items, stock=3)
    assert go_on(items, server.url).resumed_at == 0


def test_a_store_that_lost_its_rows_lost_the_mark_with_them(server: Valkey, items: Path) -> None:
    killed_after(2000, items, server.url)
    server.restart()
    assert go_on(items, server.url).resumed_at == 0
    assert num_rows(server) == ROWS


def test_who_asks_for_it_begins_at_the_first_row(server: Valkey, items: Path) -> None:
    killed_after(2000, items, server.url)
    assert go_on(items, server.url, resume=False).resumed_at == 0


@pytest.mark.parametrize("value", [b"", b"nonsense", b"[]", b'{"rows": 7}', b'{"what": 1, "rows": "x"}'])
def test_a_mark_of_nonsense_claims_nothing(server: Valkey, items: Path, value: bytes) -> None:
    fingerprint = PREFIX.removesuffix(":").rpartition(":")[2]
    server.put({f"rankd::import:{ITEMS.name}:{fingerprint}": value})
    assert go_on(items, server.url).resumed_at == 0
