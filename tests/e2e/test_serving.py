"""A service and a store as they run in earnest, and what becomes of answers when the store does not."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from rankd_contract.schema import Entity
from tests.e2e.conftest import ITEMS, USERS, Stack, echoes
from tests.support.bundles import publish_bundle
from tests.support.process import service_process

pytestmark = [pytest.mark.redis, pytest.mark.timeout(60)]
BODY = {"user": USERS[0], "item_ids": ITEMS[:100]}


def test_p2_under_concurrency_every_score_comes_from_the_candidates_own_row(stack: Stack) -> None:
    """The echo bundle answers with the ids in the rows it was given: a mix-up would show in a score."""
    of_item = echoes(Entity.ITEM, "item_id", ITEMS)
    of_user = echoes(Entity.USER, "user_id", USERS)
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    wrong: list[Any] = []

    async def ask(client: httpx.AsyncClient) -> None:
        user, items = rng.choice(USERS), rng.sample(ITEMS, rng.randrange(1, 200))
        answer = await client.post(
            "/v1/rank/films", json={"user": user, "item_ids": items, "deadline_ms": 5000}
        )
        body = answer.json()
        assert (answer.status_code, body["degraded"]) == (200, []), body
        assert {item["id"] for item in body["items"]} == set(items)
        wrong.extend(
            item
            for item in body["items"]
            if item["scores"]
            != {"liked": pytest.approx(of_item[item["id"]]), "loved": pytest.approx(of_user[user])}
        )

    async def storm() -> None:
        limits = httpx.Limits(max_connections=24)
        async with httpx.AsyncClient(base_url=stack.service.address, limits=limits, timeout=30) as client:
            await asyncio.gather(*(ask(client) for _ in range(300)))

    asyncio.run(storm())
    assert not wrong, f"seed {seed}: {wrong[:3]}"


def test_a_request_by_ids_is_answered_from_the_stored_rows(stack: Stack) -> None:
    body = stack.rank(BODY).json()
    assert body["feature_status"] == {"user": {"PRESENT": 1}, "item": {"PRESENT": 100}}
    assert body["degraded"] == []
    assert stack.metric('rankd_feature_reads_total{status="PRESENT",view="item"}') == 100
    assert stack.metric("rankd_redis_connections_opened") == 1


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def until(condition: Callable[[], Any], within_s: float) -> float:
    """Ask until the condition holds -> seconds it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < within_s, "it never came true"
    return time.monotonic() - started


@pytest.mark.fault
def test_a2_a_frozen_store_costs_its_budget_and_no_connection(stack: Stack) -> None:
    assert stack.rank(BODY).json()["degraded"] == []
    with frozen(stack.store.pid):
        for _ in range(5):
            answer = stack.rank({**BODY, "deadline_ms": 300})
            assert answer.status_code == 200
            reasons = {d["reason"] for d in answer.json()["degraded"]}
            # On a busy machine what the wait has left may be too little to score anything.
            assert {"store_timeout"} <= reasons <= {"store_timeout", "inference_late"}
            assert answer.json()["took_ms"] < 500, "the deadline, and what a busy machine may add"
            assert set(answer.json()["feature_status"]["user"]) == {"TIMED_OUT"}
            assert set(answer.json()["feature_status"]["item"]) <= {"PRESENT", "STALE_L1"}, "near at hand"
    until(lambda: stack.rank(BODY).json()["degraded"] == [], within_s=2)
    assert stack.metric("rankd_redis_connections_opened") <= 6, "one a read that waited, none again"
    assert stack.metric('rankd_redis_errors_total{kind="timeout"}') == 5


@pytest.mark.fault
def test_a1_a_killed_store_degrades_answers_until_it_is_back(stack: Stack) -> None:
    assert stack.rank(BODY).json()["degraded"] == []
    stack.store.watch()
    with frozen(stack.store.pid):  # so that it is gone, and not yet back, for the first request
        os.kill(stack.store.pid, signal.SIGKILL)
    reasons = [d["reason"] for d in stack.rank(BODY).json()["degraded"]]
    assert reasons[0] in {"store_down", "features_missing"}
    until(lambda: stack.rank(BODY).headers.get("x-degraded") != "store_down", within_s=10)
    stack.fill()
    until(lambda: stack.rank(BODY).json()["degraded"] == [], within_s=2)


def test_without_an_address_the_service_brings_its_own_store_and_takes_it_along(tmp_path: Path) -> None:
    publish_bundle(tmp_path / "models")
    settings = {
        "models": {"repository": str(tmp_path / "models")},
        "redis": {"embedded_folder": str(tmp_path / "store")},
    }
    with service_process(tmp_path, settings) as service:
        ready = httpx.get(f"{service.address}/readyz").json()
        assert (ready["ready"], ready["store"], ready["missing"]) == (True, "up", [])
        pids = children(service.process.pid)
        assert len(pids) == 1
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), within_s=10)


def children(pid: int) -> list[int]:
    """Processes started by any thread of a process."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]
