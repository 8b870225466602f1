"""Letter E of the fault matrix without load: late on arrival, callers that leave, memory, a blocked loop."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from rankd_service.app import build
from rankd_service.settings_sources import load_settings
from tests.faults.loaded import (
    ITEMS,
    PATH,
    SCHEMA,
    USERS,
    samples,
)
from tests.support.bundles import echo, item_rows, publish_bundle, user_rows
from tests.support.memory_store import MemoryStore
from tests.support.process import service_process
from tests.support.server import running, until_ready
from tests.support.valkey import Valkey


class TurnStore(MemoryStore):
    """A store that answers after a while, or after blocking the whole process for `block_s`."""

    def __init__(self, takes_s: float) -> None:
        now_s = time.time()
        super().__init__({**user_rows(SCHEMA, USERS, now_s), **item_rows(SCHEMA, ITEMS, now_s)})
        self.takes_s, self.block_s = takes_s, 0.0

    async def read(self, keys: Sequence[str], budget_s: float) -> list[bytes | None]:
        blocked_s, self.block_s = self.block_s, 0.0
        if blocked_s:
            threading.Event().wait(blocked_s)
        await asyncio.sleep(self.takes_s)
        return await super().read(keys, budget_s)


@dataclass(frozen=True)
class Small:
    """A service in this process, over a store of ours."""

    client: httpx.Client
    store: TurnStore

    def rank(self, **changes: Any) -> httpx.Response:
        return self.client.post(PATH, json={"user": "1", "item_ids": ITEMS[:5], **changes})

    def metrics(self) -> dict[str, float]:
        return samples(self.client.get("/metrics").text)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    publish_bundle(tmp_path, graph=echo)
    store = TurnStore(takes_s=0.02)
    settings = load_settings(models={"repository": tmp_path})
    with running(build(settings, store)) as address:
        until_ready(address)
        # Admission goes by the header, and on a busy machine turns come late; a body may ask for less.
        patient = {"X-Deadline-Ms": "5000"}
        with httpx.Client(base_url=address, timeout=10, headers=patient) as client:
            yield Small(client, store)


@pytest.mark.fault("E5")
def test_a_deadline_that_is_over_on_arrival_costs_neither_a_read_nor_a_run(small: Small) -> None:
    reads = small.store.reads
    answer = small.rank(deadline_ms=0.001)
    assert answer.status_code == 504
    assert (small.store.reads, small.metrics().get("rankd_batch_requests_count")) == (reads, 0.0)


@pytest.mark.fault("E6")
@pytest.mark.fault("E7")
def test_callers_that_hang_up_anywhere_leave_nothing_behind_and_hurt_nobody(small: Small) -> None:
    exact = small.rank().json()["items"]
    body = json.dumps({"user": "1", "item_ids": ITEMS[:5]}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    request = head.encode() + b"\r\n\r\n" + body
    where = [(cut, 0.0) for cut in np.linspace(1, len(request), 10).astype(int).tolist()]
    where += [(len(request), wait_s) for wait_s in np.linspace(0.0, 0.03, 10).tolist()]
    url = small.client.base_url
    stayed: list[httpx.Response] = []
    stays = [threading.Thread(target=lambda: stayed.append(small.rank())) for _ in range(8)]
    for at, (cut, wait_s) in enumerate(where):
        with socket.create_connection((url.host, url.port or 80)) as gone:
            gone.sendall(request[:cut])
            if at < len(stays):
                stays[at].start()
            threading.Event().wait(wait_s)
    for one in stays:
        one.join()
    assert [answer.json()["items"] for answer in stayed] == [exact] * len(stays)
    left = {"rankd_inflight_requests", "rankd_admitted_requests", "rankd_queue_depth"}
    give_up_s = time.monotonic() + 2
    while any(found := [small.metrics()[name] for name in left]):
        assert time.monotonic() < give_up_s, dict(zip(left, found, strict=True))


@pytest.mark.fault("E11")
def test_a_process_without_memory_to_spare_refuses_and_answers_its_probes(tmp_path: Path) -> None:
    """Told that it may take less than it has, as after a leak; told that it may take enough, it serves."""
    publish_bundle(tmp_path / "models", graph=echo)
    body = {"user": "1", "item_ids": ITEMS[:5]}
    for allowed_mb, status in ((10, 503), (4000, 200)):
        settings: dict[str, dict[str, object]] = {
            "models": {"repository": str(tmp_path / "models")},
            "server": {"memory_mb": allowed_mb},
        }
        with (
            Valkey(tmp_path) as store,
            service_process(tmp_path, settings, REDIS_URL=store.url) as service,
            httpx.Client(base_url=service.address, timeout=10) as client,
        ):
            give_up_s = time.monotonic() + 10
            while not samples(client.get("/metrics").text)["rankd_memory_used_ratio"]:
                assert time.monotonic() < give_up_s, "nobody looked"
            answer = client.post(PATH, json=body)
            assert answer.status_code == status, answer.text
            short = status == 503
            if short:
                assert answer.json()["error"]["code"] == "MEMORY"
                assert int(answer.headers["retry-after"]) >= 1
            assert client.get("/livez").status_code == 200
            readiness = client.get("/readyz")
            assert readiness.status_code == status, "who balances load sends it to others"
            assert any("requests are refused" in line for line in readiness.json()["missing"]) is short


@pytest.mark.fault("E10")
def test_after_the_loop_was_blocked_deadlines_hold_and_the_service_is_as_before(small: Small) -> None:
    small.store.block_s = 0.2
    answers: list[tuple[int, str | None]] = []

    def ask() -> None:
        answer = small.rank(deadline_ms=100)
        answers.append((answer.status_code, answer.headers.get("x-degraded")))

    callers = [threading.Thread(target=ask) for _ in range(12)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(answers) == 12
    assert {status for status, _ in answers} <= {200, 503, 504}
    assert 504 in {status for status, _ in answers}, "whose deadline passed while nothing moved"
    again = small.rank(deadline_ms=1000)
    assert (again.status_code, again.json()["degraded"]) == (200, [])
