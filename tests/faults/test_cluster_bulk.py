"""What writes to a cluster and looks at it: the import, a row shown, the doctor."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankd_contract.keys import key_prefix
from rankd_service.features.importer import import_rows
from tests.rankd.test_cli import rankd
from tests.rankd.test_doctor import doctor
from tests.support.bundles import echo, publish_bundle, user_rows
from tests.support.example_schema import EXAMPLE
from tests.support.valkey_cluster import ValkeyCluster

pytestmark = [pytest.mark.redis, pytest.mark.fault, pytest.mark.timeout(120)]

ITEMS = EXAMPLE.view("item_profile")
PREFIX = key_prefix("rankd", EXAMPLE, ITEMS)
ROWS = 6000


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    """A cluster that no test kills a node of; slots may have moved."""
    with ValkeyCluster(tmp_path_factory.mktemp("shared"), "--cluster-require-full-coverage", "no") as cluster:
        yield cluster


@pytest.fixture
def cluster(shared: ValkeyCluster) -> ValkeyCluster:
    with shared.client() as client:
        client.flushall()
    return shared


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ValkeyCluster]:
    """A cluster to break."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    with ValkeyCluster(folder, "--cluster-require-full-coverage", "no") as running:
        yield running


@pytest.fixture
def items(tmp_path: Path) -> Path:
    table = pa.table(
        {
            "item_id": pa.array(range(ROWS)),
            "title": pa.array([f"title {i}" for i in range(ROWS)]),
            "price": pa.array([0.5] * ROWS),
            "stock": pa.array(range(ROWS)),
            "event_time": pa.array([1_800_000_000] * ROWS),
        }
    )
    pq.write_table(table, tmp_path / "items.parquet")
    return tmp_path / "items.parquet"


def num_rows(cluster: ValkeyCluster) -> int:
    with cluster.client() as client:
        return sum(client.exists(f"{PREFIX}{i}") for i in range(0, ROWS, 7))


ALL = len(range(0, ROWS, 7))


def test_an_import_reaches_every_primary(cluster: ValkeyCluster, items: Path) -> None:
    report = import_rows(items, EXAMPLE, ITEMS, cluster.url, batch_rows=1000, ttl_s=3600)
    assert report.rows == ROWS
    assert num_rows(cluster) == ALL
    with cluster.client() as client:
        assert 0 < client.ttl(f"{PREFIX}0") <= 3600
        assert not client.exists(f"rankd::import:{PREFIX.removeprefix('rankd:').removesuffix(':')}")


@pytest.mark.fault("A14")
def test_an_import_outlives_a_failover(own: ValkeyCluster, items: Path) -> None:
    """Rows whose primary is gone are written once more by whoever follows it."""
    killed = False

    def progress(done: int, rows: int) -> None:
        nonlocal killed
        if done >= 3000 and not killed:
            killed = True
            own.until_synchronised()
            own.nodes[1].kill()

    import_rows(items, EXAMPLE, ITEMS, own.url, batch_rows=500, progress=progress)
    assert killed
    assert num_rows(own) == ALL


def test_an_import_follows_slots_that_move_under_it(cluster: ValkeyCluster, items: Path) -> None:
    moved = False

    def progress(done: int, rows: int) -> None:
        nonlocal moved
        if done >= 3000 and not moved:
            moved = True
            cluster.move_slots(range(0, 40), source=0, target=2)

    import_rows(items, EXAMPLE, ITEMS, cluster.url, batch_rows=500, progress=progress)
    assert num_rows(cluster) == ALL


def test_an_import_to_a_cluster_that_was_cut_short_goes_on(cluster: ValkeyCluster, items: Path) -> None:
    class CutShort(Exception):
        pass

    def progress(done: int, rows: int) -> None:
        if done >= 3000:
            raise CutShort

    with pytest.raises(CutShort):
        import_rows(items, EXAMPLE, ITEMS, cluster.url, batch_rows=500, progress=progress)
    assert import_rows(items, EXAMPLE, ITEMS, cluster.url, batch_rows=500).resumed_at == 2500
    assert num_rows(cluster) == ALL


def test_a_row_is_shown_and_the_doctor_looks_at_every_primary(cluster: ValkeyCluster, tmp_path: Path) -> None:
    schema = publish_bundle(tmp_path / "bundles", "films", echo).schema
    cluster.put(user_rows(schema, ["42"], time.time()))
    place = ("--repository", str(tmp_path / "bundles"), "--redis-url", cluster.url)
    done = rankd("features", "get", "user", "42", "--model", "films", "--json", *place)
    assert json.loads(done.stdout)["status"] == "PRESENT", done.stderr
    code, found = doctor("--redis-url", cluster.url)
    assert (code, found["store"]["state"]) == (0, "ok")
    assert found["store"]["words"].endswith("answers, 3 primaries")
    code, found = doctor("--redis-url", cluster.nodes[0].url)
    assert (code, found["store"]["todo"]) == (1, "write its address as redis+cluster://...")
    with cluster.nodes[2].client() as client:  # gives some away that it alone knows to be its own
        client.execute_command("CLUSTER", "DELSLOTSRANGE", 16000, 16383)
    code, found = doctor("--redis-url", f"redis+cluster://127.0.0.1:{cluster.nodes[2].port}")
    assert code == 1
    assert "2% of the keys have no primary" in found["store"]["words"]
