"""Letter E of the fault matrix: more load than there is time for.

Rows that are proven elsewhere: those that need no load in test_late_faults.py, E6 and E8 in
tests/service/batching and tests/service/test_pipeline.py, E12 in tests/service/admission. The rows under load
judge ratios within one run; what they found is logged (`--log-cli-level=INFO`). Goodput is counted by the
processor time that the service had, since other programs may share its core.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import uvloop

from rankd.load.arrivals import Arrivals, due_times
from rankd.load.peak import Saturated, saturate
from rankd.load.sender import LOST, NOT_SENT, Outcome, send_all
from tests.faults.loaded import (
    DEADLINE_MS,
    Loaded,
    N,
    in_time,
    ms,
    serving,
    share_in_time,
    statuses,
)

_log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("load needs a core for the service and another for the callers")
    with serving(tmp_path_factory.mktemp("load")) as running_now:
        yield running_now


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
