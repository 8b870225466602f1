"""Letter G of the fault matrix where several processes serve: kills, hangs, crash loops, the end."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bundles import publish_bundle
from tests.support.process import ServiceProcess, environment, service_process
from tests.support.server import free_port

pytestmark = pytest.mark.fault
BODY = {"user": "1", "item_ids": [str(i) for i in range(100)]}
PATIENCE_S = 30.0


@contextmanager
def two_workers(folder: Path, **server: object) -> Iterator[ServiceProcess]:
    publish_bundle(folder / "models")
    settings: dict[str, dict[str, object]] = {
        "models": {"repository": str(folder / "models")},
        "server": {"workers": 2, **server},
    }
    with service_process(folder, settings, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0") as running:
        until(lambda: ready(running) == 2)
        yield running


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with two_workers(tmp_path_factory.mktemp("workers"), hang_s=1.0) as running:
        yield running


def until(holds: Any) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def ready(service: ServiceProcess) -> int:
    with suppress(httpx.TransportError):
        return int(httpx.get(f"{service.address}/readyz", timeout=5).json()["workers"]["ready"])
    return 0


def metrics(service: ServiceProcess) -> dict[str, float]:
    """Every counter and histogram series."""
    text = httpx.get(f"{service.address}/metrics", timeout=5).raise_for_status().text
    lines = re.findall(r"^(rankd_\w+?(?:_total|_bucket|_count|_sum)(?:\{.*\})?) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in lines}


def note(seen: list[dict[str, float]], scraped: dict[str, float]) -> bool:
    seen.append(scraped)
    return True


class Callers:
    """Threads that ask on kept connections until they are stopped, and what became of each request."""

    def __init__(self, address: str, number: int, until_refused: bool = False) -> None:
        self.codes: Counter[str] = Counter()
        self._address, self._until_refused, self._stop = address, until_refused, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(number)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.join()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=PATIENCE_S)

    def _ask(self) -> None:
        with ExitStack() as stack:
            client = stack.enter_context(httpx.Client(base_url=self._address, timeout=10))
            while not self._stop.is_set():
                try:
                    code = str(client.post("/v1/rank/films", json=BODY).status_code)
                except httpx.ConnectError:
                    code = "not accepted"
                except httpx.TransportError:
                    code = "lost"
                self.codes[code] += 1
                if self._until_refused and code != "200":
                    return


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


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


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


@pytest.fixture
def nursed(tmp_path: Path) -> Iterator[ServiceProcess]:
    with two_workers(tmp_path, hang_s=1.0) as running:
        yield running


def test_workers_are_forked_from_what_has_no_thread_and_no_runtime(service: ServiceProcess) -> None:
    nursery = service.nursery()
    assert len(list(Path(f"/proc/{nursery}/task").iterdir())) == 1
    mapped = Path(f"/proc/{nursery}/maps").read_text()
    assert "onnxruntime" not in mapped
    assert "pydantic_core" in mapped, "what workers share is imported"
    (line,) = [entry for entry in descriptors(nursery) if entry.startswith("socket:")]
    for worker in service.workers():
        assert "onnxruntime" in Path(f"/proc/{worker}/maps").read_text()
        assert line not in descriptors(worker), "the nursery's line is its own"


def test_no_worker_holds_anothers_line(service: ServiceProcess) -> None:
    """Else the end of the supervisor would break no line, and the workers serve on without one."""
    first, second = (descriptors(pid) for pid in service.workers())
    shared = {entry for entry in first & second if entry.startswith("socket:")}
    assert len(shared) == 1, "the listening one"


def descriptors(pid: int) -> set[str]:
    return {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}


def test_new_request_ids_of_two_workers_differ(service: ServiceProcess) -> None:
    begun = set()
    for _ in range(40):
        answer = httpx.post(f"{service.address}/v1/rank/films", json=BODY)
        begun.add(answer.headers["x-request-id"][:16])
    assert len(begun) == 2, "each worker's ids begin with a number of its own"


@pytest.mark.fault("G3")
def test_a_killed_nursery_costs_no_answer_and_workers_are_still_replaced(nursed: ServiceProcess) -> None:
    with Callers(nursed.address, 4) as callers:
        until(lambda: callers.codes["200"] > 50)
        before, nursery = nursed.workers(), nursed.nursery()
        os.kill(nursery, signal.SIGKILL)
        until(lambda: not alive(nursery))
        asked = callers.codes["200"]
        until(lambda: callers.codes["200"] > asked + 50)
        assert set(callers.codes) == {"200"}, callers.codes
    assert [pid for pid in before if alive(pid)] == before, "the workers serve on"
    os.kill(before[0], signal.SIGKILL)
    os.kill(before[1], signal.SIGSTOP)  # and one that hangs is ended, though nobody forks for it now
    until(lambda: not any(alive(pid) for pid in before))
    until(lambda: ready(nursed) == 2)
    assert nursed.nursery() != nursery
    assert httpx.post(f"{nursed.address}/v1/rank/films", json=BODY).status_code == 200


@pytest.mark.slow
def test_a_nursery_that_hangs_keeps_nobody_from_serving_or_ending(nursed: ServiceProcess) -> None:
    os.kill(nursed.nursery(), signal.SIGSTOP)
    killed, other = nursed.workers()
    os.kill(killed, signal.SIGKILL)
    time.sleep(1.0)
    for _ in range(10):
        assert httpx.post(f"{nursed.address}/v1/rank/films", json=BODY, timeout=5).status_code == 200
    nursed.process.terminate()
    assert nursed.process.wait(timeout=60) == 0
    until(lambda: not alive(other))
