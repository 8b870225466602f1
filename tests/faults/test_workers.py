"""Letter G of the fault matrix where several processes serve: kills, hangs, crash loops, the end."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from tests.support.crew import BODY, Callers, alive, metrics, ready, two_workers, until
from tests.support.process import ServiceProcess, environment
from tests.support.server import free_port

pytestmark = pytest.mark.fault


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with two_workers(tmp_path_factory.mktemp("workers"), hang_s=1.0) as running:
        yield running


def note(seen: list[dict[str, float]], scraped: dict[str, float]) -> bool:
    seen.append(scraped)
    return True


@pytest.mark.fault("G3")
def test_a_killed_worker_loses_only_its_own_and_is_replaced_and_no_counter_falls(
    service: ServiceProcess,
) -> None:
    with Callers(service.address, 6) as callers:
        until(lambda: callers.codes["200"] > 50)
        before, seen = service.workers(), [metrics(service)]
        os.kill(before[0], signal.SIGKILL)
        until(lambda: before[0] not in service.workers())
        until(lambda: note(seen, metrics(service)) and ready(service) == 2)
        asked = callers.codes["200"]
        until(lambda: callers.codes["200"] > asked + 50)
        seen.append(metrics(service))
    assert set(callers.codes) <= {"200", "lost"}, callers.codes
    assert callers.codes["lost"] <= 6
    assert before[0] not in service.workers()
    assert before[1] in service.workers()
    for earlier, later in pairwise(seen):
        assert [name for name, value in earlier.items() if later.get(name, -1) < value] == []
    assert seen[-1]['rankd_worker_restarts_total{cause="killed"}'] == 1


@pytest.mark.slow
@pytest.mark.fault("G3")
def test_a_worker_that_cannot_be_started_again_now_ends_no_other(service: ServiceProcess) -> None:
    soft, hard = resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)
    killed, other = service.workers()
    resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (3, hard))
    try:
        os.kill(killed, signal.SIGKILL)
        until(lambda: killed not in service.workers())
        time.sleep(0.5)  # several attempts
        assert service.process.poll() is None
        assert service.workers() == [other]
        assert httpx.post(f"{service.address}/v1/rank/films", json=BODY, timeout=5).status_code == 200
    finally:
        resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: ready(service) == 2)


@pytest.mark.fault("G4")
def test_a_worker_that_crashes_in_native_code_says_where_and_is_replaced(service: ServiceProcess) -> None:
    before = service.workers()
    os.kill(before[0], signal.SIGSEGV)
    until(lambda: before[0] not in service.workers())
    until(lambda: ready(service) == 2)
    assert metrics(service)['rankd_worker_restarts_total{cause="signal"}'] == 1
    assert service.process.stderr is not None
    os.set_blocking(service.process.stderr.fileno(), False)
    written = service.process.stderr.read() or b""
    assert b"Fatal Python error: Segmentation fault" in written
    assert b"Current thread" in written


@pytest.mark.fault("G5")
def test_a_worker_that_hangs_is_found_by_its_silence_and_replaced(service: ServiceProcess) -> None:
    before = service.workers()
    os.kill(before[0], signal.SIGSTOP)
    codes = Counter(
        httpx.post(f"{service.address}/v1/rank/films", json=BODY, timeout=5).status_code for _ in range(20)
    )
    assert codes == {200: 20}  # nobody is sent to the one that hangs
    until(lambda: before[0] not in service.workers())
    until(lambda: ready(service) == 2)
    assert metrics(service)['rankd_worker_restarts_total{cause="hung"}'] == 1


def shares(service: ServiceProcess) -> list[float]:
    """How many connections each worker has, as each said a moment ago."""
    text = httpx.get(f"{service.address}/metrics").text
    return [float(n) for n in re.findall(r"^rankd_worker_connections\{.*\} (\S+)$", text, re.MULTILINE)]


@pytest.mark.fault("G3")
def test_a_worker_that_comes_later_gets_its_share_of_kept_connections(service: ServiceProcess) -> None:
    with Callers(service.address, 12) as callers:
        until(lambda: sum(shares(service)) >= 12)
        os.kill(service.workers()[0], signal.SIGKILL)
        until(lambda: max(shares(service)) >= 12)  # all have come to the other
        until(lambda: ready(service) == 2)
        lost = callers.codes["lost"]
        until(lambda: min(shares(service)) >= 5)
        asked = callers.codes["200"]
        until(lambda: callers.codes["200"] > asked + 50)
    assert callers.codes["lost"] == lost, "to close a connection after its answer loses nothing"
    assert set(callers.codes) <= {"200", "lost"}, callers.codes


def test_connections_are_shared_out_evenly(service: ServiceProcess) -> None:
    def unevenness() -> float:
        """Of twenty new ones; a worker that has only just started may be too busy to take its share."""
        with ExitStack() as stack:
            for _ in range(20):
                client = stack.enter_context(httpx.Client(base_url=service.address))
                assert client.get("/livez").status_code == 200
            time.sleep(0.3)  # so that each worker has said how many it has
            found = shares(service)
        return max(found) - min(found)

    assert min(unevenness() for _ in range(3)) <= 4


def status(service: ServiceProcess) -> int:
    """Of a request on a connection of its own."""
    connection = HTTPConnection(service.address.removeprefix("http://"), timeout=30)
    with closing(connection):
        connection.request("POST", "/v1/rank/films", json.dumps(BODY), {"content-type": "application/json"})
        return connection.getresponse().status


@pytest.mark.fault("G3")
def test_whoever_connects_once_one_worker_is_ready_meets_none_that_is_not(service: ServiceProcess) -> None:
    for _ in range(3):
        for pid in service.workers():
            os.kill(pid, signal.SIGKILL)
        give_up = time.monotonic() + 30
        while status(service) != 200:  # without a pause: what is looked for lasted a tenth of a second
            assert time.monotonic() < give_up
        assert {status(service) for _ in range(100)} == {200}
        until(lambda: ready(service) == 2)


@pytest.mark.slow
@pytest.mark.fault("G3")
def test_a_crash_loop_is_left_alone_longer_and_readiness_says_so(service: ServiceProcess) -> None:
    kept = service.workers()[0]
    said: list[str] = []
    for _ in range(5):
        until(lambda: len(service.workers()) == 2)
        os.kill(next(pid for pid in service.workers() if pid != kept), signal.SIGKILL)
        until(lambda: len(service.workers()) == 1)
        said += httpx.get(f"{service.address}/readyz").json()["missing"]
    assert any(re.fullmatch(r"worker \d: down \(killed [3-9] times in a row\)", line) for line in said), said
    assert httpx.post(f"{service.address}/v1/rank/films", json=BODY).status_code == 200
    until(lambda: ready(service) == 2)


@pytest.mark.fault("G1")
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "a closed terminal"])
def test_sigterm_to_the_supervisor_under_load_loses_no_answer(tmp_path: Path, sign: signal.Signals) -> None:
    with (
        two_workers(tmp_path, lame_duck_s=0.5) as service,
        Callers(service.address, 6, until_refused=True) as callers,
    ):
        until(lambda: callers.codes["200"] > 50)
        pids = service.workers()
        # As systemd does it: every process of the group gets the signal, the workers a second time by us.
        for pid in (service.process.pid, *pids):
            os.kill(pid, sign)
        callers.join()
        assert service.process.wait(timeout=20) == 0
    assert set(callers.codes) <= {"200", "503"}, callers.codes
    assert callers.codes["503"] == 6


@pytest.mark.slow
def test_no_worker_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    with two_workers(tmp_path) as service:
        pids = service.workers()
        assert len(pids) == 2
        service.process.kill()
        until(lambda: not any(alive(pid) for pid in pids))


@pytest.mark.slow
def test_what_no_worker_can_start_with_is_said_once_and_ends_the_service(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "rankd_service"],
        env=environment(
            REDIS_URL="http://host/",
            RANKD_SERVER__PORT=str(free_port()),
            RANKD_SERVER__WORKERS="2",
            RANKD_MODELS__REPOSITORY=str(tmp_path),
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert len([line for line in ended.stderr.splitlines() if not line.startswith("{")]) == 1
    assert "redis" in ended.stderr
