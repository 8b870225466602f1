"""Letter E of the fault matrix: more load than there is time for, callers that leave, a loop that is blocked.

Rows that are proven elsewhere: E6 and E8 in tests/service/batching and tests/service/test_pipeline.py, E5
there too, E12 in tests/service/admission. The rows under load judge ratios within one run; what they found is
logged (`--log-cli-level=INFO`). Goodput is counted by the processor time that the service had, since other
programs may share its core.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvloop
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from rankd.load.arrivals import Arrivals, due_times
from rankd.load.peak import Saturated, saturate
from rankd.load.sender import LOST, NOT_SENT, Outcome, send_all
from rankd_contract.schema_file import parse_schema
from rankd_service.app import build
from rankd_service.settings_sources import load_settings
from tests.support.bundles import SCHEMA_TEXT, echo, item_rows, publish_bundle, sleepy, user_rows
from tests.support.memory_store import MemoryStore
from tests.support.process import ServiceProcess, service_process
from tests.support.server import running, until_ready
from tests.support.valkey import Valkey

_log = logging.getLogger(__name__)
PATH = "/v1/rank/films"
USERS, ITEMS = [str(i) for i in range(20)], [str(i) for i in range(1000)]
SCHEMA = parse_schema(SCHEMA_TEXT)
DEADLINE_MS = 250.0
N, ROW_US = 100, 8.0  # a request of about a millisecond


@dataclass(frozen=True)
class Loaded:
    """A service on a core of its own, and how to load it from another."""

    service: ServiceProcess

    @property
    def url(self) -> str:
        return f"{self.service.address}{PATH}"

    def cpu_s(self) -> float:
        tasks = Path(f"/proc/{self.service.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def bodies(self, seed: int = 1, n: int = N) -> list[bytes]:
        rng = random.Random(seed)
        asked = [
            {"user": rng.choice(USERS), "item_ids": rng.sample(ITEMS, n), "top_k": 10} for _ in range(64)
        ]
        return [json.dumps(one).encode() for one in asked]

    def peak(self, seconds: float = 3.0) -> tuple[float, float]:
        """Answers a second, by the clock and by the processor."""
        before_s = self.cpu_s()
        found = uvloop.run(saturate(self.url, self.bodies(), 16, seconds))
        return found.rate, len(found.taken_s) / (self.cpu_s() - before_s)

    def send(self, due_s: NDArray[np.float64], **headers: str) -> list[Outcome]:
        given = {"X-Deadline-Ms": f"{DEADLINE_MS:g}", **headers}
        return uvloop.run(send_all(self.url, self.bodies(), due_s, given, patience_s=3.0))

    def send_steadily(self, rate: float, seconds: float) -> list[Outcome]:
        return self.send(due_times(Arrivals.POISSON, rate, seconds, seed=1))

    def metrics(self) -> dict[str, float]:
        return samples(httpx.get(f"{self.service.address}/metrics", timeout=10).text)


def samples(exposition: str) -> dict[str, float]:
    """Values by name, summed over labels."""
    values: Counter[str] = Counter()
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            values[sample.name] += sample.value  # type: ignore[assignment]
    return dict(values)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("load needs a core for the service and another for the callers")
    folder = tmp_path_factory.mktemp("load")
    publish_bundle(folder / "models", graph=sleepy(ROW_US))
    os.sched_setaffinity(0, set(cores[1:]))
    try:
        with Valkey(folder) as store:
            store.put(user_rows(SCHEMA, USERS, time.time()))
            store.put(item_rows(SCHEMA, ITEMS, time.time()))
            settings: dict[str, dict[str, object]] = {"models": {"repository": str(folder / "models")}}
            with service_process(folder, settings, REDIS_URL=store.url) as service:
                for thread in Path(f"/proc/{service.process.pid}/task").iterdir():
                    os.sched_setaffinity(int(thread.name), {cores[0]})
                running_now = Loaded(service)
                running_now.peak(1.0)
                yield running_now
    finally:
        os.sched_setaffinity(0, set(cores))


def in_time(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [o for o in outcomes if o.status == 200 and ms(o) <= DEADLINE_MS]


def share_in_time(outcomes: Sequence[Outcome]) -> float:
    return round(len(in_time(outcomes)) / max(1, len(outcomes)), 4)


def ms(outcome: Outcome) -> float:
    return 1000 * (outcome.done_s - outcome.due_s)


def statuses(outcomes: Sequence[Outcome]) -> Counter[int]:
    return Counter(o.status for o in outcomes)


@pytest.mark.load
@pytest.mark.fault("E1")
@pytest.mark.fault("E3")
@pytest.mark.fault("E13")
@pytest.mark.timeout(120)
def test_at_three_times_the_load_nine_tenths_are_still_answered_and_afterwards_all(loaded: Loaded) -> None:
    shares, refused_ms, answered_ms, polled_ms = [], [], [], list[float]()
    memory = loaded.service.resident_bytes()
    stop = threading.Event()

    def poll() -> None:
        with httpx.Client(base_url=loaded.service.address, timeout=10) as client:
            while not stop.wait(0.5):
                for path in ("/livez", "/readyz", "/metrics"):
                    began_s = time.perf_counter()
                    assert client.get(path).status_code == 200
                    polled_ms.append(1000 * (time.perf_counter() - began_s))

    for _ in range(3):
        rate, by_cpu = loaded.peak()
        poller = threading.Thread(target=poll)
        stop.clear()
        poller.start()
        before_s = loaded.cpu_s()
        outcomes = loaded.send_steadily(3 * rate, 6.0)
        spent_s = loaded.cpu_s() - before_s
        stop.set()
        poller.join()
        assert set(statuses(outcomes)) <= {200, 503, 504}, statuses(outcomes)
        shares.append(len(in_time(outcomes)) / spent_s / by_cpu)
        answered_ms += [ms(o) for o in outcomes if o.status == 200]
        refused_ms += [ms(o) for o in outcomes if o.status == 503]
    recovered = loaded.send_steadily(0.4 * rate, 12.0)
    late = share_in_time([o for o in recovered if o.due_s > 10])
    found = {
        "goodput at 3x to peak": [round(s, 2) for s in shares],
        "answered p99 ms": round(float(np.percentile(answered_ms, 99))),
        "refused p50, p99 ms": np.percentile(refused_ms, (50, 99)).round(1).tolist(),
        "health and metrics p50, p95 ms": np.percentile(polled_ms, (50, 95)).round(1).tolist(),
        "in time after it, and after ten seconds": [share_in_time(recovered), late],
        "memory grew by MiB": (loaded.service.resident_bytes() - memory) >> 20,
    }
    _log.info("%s", found)
    # 0.9 is what is promised, and measured on a machine of its own; the rest is for a shared one.
    assert sorted(shares)[1] >= 0.8, found
    assert np.percentile(answered_ms, 90) <= DEADLINE_MS, found
    assert np.percentile(refused_ms, 50) <= 50, found  # 2 on a machine of its own
    assert np.percentile(polled_ms, 50) <= 100, found
    assert late >= 0.99, found
    assert loaded.service.resident_bytes() - memory < 32 << 20, found


@pytest.mark.load
@pytest.mark.fault("E2")
@pytest.mark.fault("E3")
@pytest.mark.timeout(120)
def test_a_burst_of_ten_times_the_load_is_forgotten_a_second_later(loaded: Loaded) -> None:
    rate, _ = loaded.peak()
    calm, burst = 0.4 * rate, 10 * 0.4 * rate
    parts = [(calm, 2.0), (burst, 1.0), (calm, 4.0)]
    due, at_s = [], 0.0
    for asked, seconds in parts:
        due.append(at_s + due_times(Arrivals.POISSON, asked, seconds, seed=2))
        at_s += seconds
    outcomes = loaded.send(np.concatenate(due))
    assert set(statuses(outcomes)) <= {200, 503, 504}, statuses(outcomes)
    after = [o for o in outcomes if o.due_s > 4.0]
    before = [o for o in outcomes if o.due_s < 2.0]
    found = {
        "in time before, after": [share_in_time(before), share_in_time(after)],
        "p50 ms before, after": [float(np.median([ms(o) for o in part])) for part in (before, after)],
        "statuses": statuses(outcomes),
    }
    _log.info("%s", found)
    assert share_in_time(after) >= share_in_time(before) - 0.05, found
    assert loaded.metrics()["rankd_queue_depth"] == 0


@pytest.mark.load
@pytest.mark.fault("E4")
@pytest.mark.timeout(120)
def test_callers_that_repeat_every_refusal_at_once_do_not_multiply_it(loaded: Loaded) -> None:
    """Sixteen callers keep the service busy; 300 more ask for what it has no time for, without end."""
    shares, repeated = [], []
    for _ in range(3):
        _, by_cpu = loaded.peak()
        before_s = loaded.cpu_s()

        async def storm() -> tuple[Saturated, Saturated]:
            patient = saturate(loaded.url, loaded.bodies(), 16, 4.0)
            hasty = saturate(loaded.url, loaded.bodies(), 300, 4.0, {"X-Deadline-Ms": "40"})
            return await asyncio.gather(patient, hasty)

        patient, hasty = uvloop.run(storm())
        answered = len(patient.taken_s) + len(hasty.taken_s)
        shares.append(answered / (loaded.cpu_s() - before_s) / by_cpu)
        repeated.append(hasty.refused / answered)
    found = {"goodput to peak": shares, "refusals an answer": repeated}
    _log.info("%s", found)
    assert sorted(shares)[1] >= 0.75, found


@pytest.mark.load
@pytest.mark.fault("E9")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("n", [N, 1000])
def test_a_flood_of_batch_requests_leaves_live_ones_their_share(loaded: Loaded, n: int) -> None:
    """Of such with as many candidates, and of long ones."""
    rate, _ = loaded.peak()
    due_s = due_times(Arrivals.POISSON, 0.3 * rate, 6.0, seed=3)
    flood_s = due_times(Arrivals.POISSON, 2 * rate * N / n, 6.0, seed=4)
    alone = loaded.send(due_s)

    async def both() -> tuple[list[Outcome], list[Outcome]]:
        deadline = {"X-Deadline-Ms": f"{DEADLINE_MS:g}"}
        batch = {**deadline, "X-Priority": "batch"}
        return await asyncio.gather(
            send_all(loaded.url, loaded.bodies(), due_s, deadline, patience_s=2.0),
            send_all(loaded.url, loaded.bodies(2, n), flood_s, batch, patience_s=2.0),
        )

    live, flood = uvloop.run(both())
    found: dict[str, Any] = {
        "candidates of batch requests": n,
        "live in time alone, beside": [share_in_time(alone), share_in_time(live)],
        "live p50, p99 ms alone": np.percentile([ms(o) for o in in_time(alone)], (50, 99)).round(1).tolist(),
        "live p50, p99 ms beside": np.percentile([ms(o) for o in in_time(live)], (50, 99)).round(1).tolist(),
        "live, batch": [statuses(live), statuses(flood)],
    }
    _log.info("%s", found)
    assert share_in_time(live) >= share_in_time(alone) - 0.05, found
    assert statuses(flood)[200] > 0.05 * len(flood), found
    assert not {LOST, NOT_SENT} & set(statuses(live)), found


# The everyday rows.


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
