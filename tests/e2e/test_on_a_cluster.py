"""The service over a real cluster: what its answers say while one primary of three is gone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rankd_contract.keys import key_prefix
from rankd_contract.schema import Entity
from tests.e2e.conftest import ITEMS, SCHEMA, USERS, echoes
from tests.support.bundles import echo, item_rows, publish_bundle, user_rows
from tests.support.process import service_process
from tests.support.valkey_cluster import ValkeyCluster

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.fault, pytest.mark.timeout(90)]

FILMS = ITEMS[:300]
OF_ITEM = echoes(Entity.ITEM, "item_id", FILMS)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ValkeyCluster]:
    publish_bundle(tmp_path / "models", graph=echo)
    folder = tmp_path / "cluster"
    folder.mkdir()
    with ValkeyCluster(folder, "--cluster-require-full-coverage", "no") as running:
        now_s = time.time()
        running.put({**user_rows(SCHEMA, USERS, now_s), **item_rows(SCHEMA, FILMS, now_s)})
        running.until_synchronised()
        yield running


def user_of(cluster: ValkeyCluster, primary: int) -> str:
    """A user whose row is with a primary."""
    prefix = key_prefix("rankd", SCHEMA, SCHEMA.view("user"))
    return cluster.keys_of(primary, [prefix + user for user in USERS])[0].removeprefix(prefix)


def items_of(cluster: ValkeyCluster, primary: int) -> set[str]:
    prefix = key_prefix("rankd", SCHEMA, SCHEMA.view("item"))
    return {k.removeprefix(prefix) for k in cluster.keys_of(primary, [prefix + item for item in FILMS])}


def ranked(address: str, user: str) -> dict[str, Any]:
    body = {"user": user, "item_ids": FILMS, "deadline_ms": 2000}
    answer = httpx.post(f"{address}/v1/rank/films", json=body, timeout=10)
    assert answer.status_code == 200
    tree: dict[str, Any] = answer.json()
    wrong = [
        i for i in tree["items"] if i.get("status", "PRESENT") in {"PRESENT", "STALE_L1"} and not exact(i)
    ]
    assert not wrong, wrong[:3]
    return tree


def until_degraded(address: str, user: str) -> dict[str, Any]:
    """Ask until the service has noticed; rows near at hand are fresh until their feed is lost."""
    give_up = time.monotonic() + 2
    while not (answer := ranked(address, user))["degraded"]:
        assert time.monotonic() < give_up, "nothing was degraded"
    return answer


def exact(item: dict[str, Any]) -> bool:
    return bool(item["scores"]["liked"] == pytest.approx(OF_ITEM[item["id"]]))


@pytest.mark.fault("A14")
@pytest.mark.parametrize("near_mb", [0, 64])
def test_a_dead_primary_degrades_the_candidates_whose_rows_it_held(
    cluster: ValkeyCluster, tmp_path: Path, near_mb: int
) -> None:
    settings: dict[str, dict[str, object]] = {
        "models": {"repository": str(tmp_path / "models")},
        "features": {"near_cache_mb": near_mb, "fetch_cap_ms": 1000},
    }
    theirs = items_of(cluster, 1)
    with service_process(tmp_path, settings, REDIS_URL=cluster.url) as service:
        user = user_of(cluster, 0)
        for _ in range(20):
            answer = ranked(service.address, user)
            assert answer["degraded"] == []
            assert answer["feature_status"] == {"user": {"PRESENT": 1}, "item": {"PRESENT": len(FILMS)}}
        cluster.nodes[1].kill()
        answer = until_degraded(service.address, user)
        rung, status = ("near_cache_row", "STALE_L1") if near_mb else ("default_row", "DEFAULTED")
        (degraded,) = answer["degraded"]
        assert degraded["rung"] == rung
        assert degraded["reason"] == "store_down"
        assert degraded["affected"] == len(theirs)
        assert {i["id"] for i in answer["items"] if i.get("status") == status} == theirs
        assert Counter(i.get("status", "PRESENT") for i in answer["items"])["PRESENT"] == len(FILMS) - len(
            theirs
        )
        # Of a user whose row it held, every score rests on a default.
        lost = ranked(service.address, user_of(cluster, 1))
        assert {d["affected"] for d in lost["degraded"] if d["rung"] == "default_row"} == {len(FILMS)}
        cluster.until_promoted(4)
        give_up = time.monotonic() + 5
        while ranked(service.address, user)["degraded"]:
            assert time.monotonic() < give_up, "the promoted replica was not found"


@pytest.mark.fault("A16")
def test_rows_near_at_hand_follow_every_primary_also_a_new_one(
    cluster: ValkeyCluster, tmp_path: Path
) -> None:
    settings: dict[str, dict[str, object]] = {
        "models": {"repository": str(tmp_path / "models")},
        "features": {"fetch_cap_ms": 1000, "near_cache_ttl_s": 3600},
    }
    prefix = key_prefix("rankd", SCHEMA, SCHEMA.view("item"))
    one_each = [min(items_of(cluster, primary)) for primary in range(3)]
    with service_process(tmp_path, settings, REDIS_URL=cluster.url) as service:
        user = user_of(cluster, 0)

        def hits() -> float:
            text = httpx.get(f"{service.address}/metrics").text
            (line,) = [
                x
                for x in text.splitlines()
                if x.startswith('rankd_cache_requests_total{cache="l1_item",result="hit"}')
            ]
            return float(line.rpartition(" ")[2])

        def until_near() -> None:
            give_up = time.monotonic() + 10
            while True:
                before = hits()
                ranked(service.address, user)
                if hits() - before == len(FILMS):
                    return
                assert time.monotonic() < give_up, "rows were never near at hand"

        def until_gone() -> None:
            with cluster.client() as client:
                for item in one_each:
                    client.delete(prefix + item)
            give_up = time.monotonic() + 2
            while ranked(service.address, user)["feature_status"]["item"].get("NOT_FOUND") != 3:
                assert time.monotonic() < give_up, "a change was not told"

        until_near()
        until_gone()
        cluster.put(item_rows(SCHEMA, one_each, time.time()))
        cluster.until_synchronised()
        cluster.nodes[2].kill()
        cluster.until_promoted(5)
        until_near()
        until_gone()
