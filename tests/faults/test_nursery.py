"""Workers are forks of one process: what they must not share, and what its end must not cost."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.bundles import publish_bundle
from tests.support.crew import BODY, Callers, alive, metrics, ready, two_workers, until
from tests.support.process import ServiceProcess, environment, service_process
from tests.support.server import free_port

pytestmark = pytest.mark.fault

THREAD = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"
# Two forks of the process that workers come from, and what each would call random.
CHANCE = """
import os, random, secrets, tempfile, uuid
import numpy
from rankd_service.surfaces.limits import request_id
from rankd_service.workers import nursery_process
for _ in range(2):
    reading, writing = os.pipe()
    if nursery_process._fork() == 0:
        drawn = [random.random(), secrets.token_hex(), uuid.uuid4(), uuid.uuid1(), request_id({})]
        drawn += [numpy.random.default_rng().random(), tempfile.mktemp()]
        os.write(writing, " ".join(map(str, drawn)).encode())
        os._exit(0)
    print(os.read(reading, 4096).decode())
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with two_workers(tmp_path_factory.mktemp("nursery"), hang_s=1.0) as running:
        yield running


def opened(pid: int) -> set[str]:
    """What a process has open beside its standard streams."""
    links = Path(f"/proc/{pid}/fd").iterdir()
    return {str(link.readlink()) for link in links if int(link.name) > 2}


def said(service: ServiceProcess, words: bytes) -> bool:
    """Whether the log that was not yet looked at has the words."""
    assert service.process.stderr is not None
    os.set_blocking(service.process.stderr.fileno(), False)
    return words in (service.process.stderr.read() or b"")


def test_what_is_forked_has_one_thread_one_socket_and_no_runtime(service: ServiceProcess) -> None:
    nursery = service.nursery()
    assert len(list(Path(f"/proc/{nursery}/task").iterdir())) == 1
    assert "onnxruntime" not in Path(f"/proc/{nursery}/maps").read_text()
    assert "numpy" in Path(f"/proc/{nursery}/maps").read_text()
    assert len(opened(nursery)) == 1


def test_the_supervisor_loads_neither_numpy_nor_the_runtime(service: ServiceProcess) -> None:
    loaded = Path(f"/proc/{service.process.pid}/maps").read_text()
    assert "numpy" not in loaded
    assert "onnxruntime" not in loaded


def test_processes_share_the_socket_and_the_page_and_no_other_descriptor(service: ServiceProcess) -> None:
    ways = ("socket:", "pipe:")
    one, other, ours, nursery = (
        {link for link in opened(pid) if link.startswith(ways)}
        for pid in (*service.workers(), service.process.pid, service.nursery())
    )
    (listener,) = one & other
    assert one & ours == other & ours == {listener}
    assert not nursery & (one | other | ours)


def test_workers_are_children_of_the_supervisor_in_groups_of_their_own_and_bear_their_names(
    service: ServiceProcess,
) -> None:
    pids = service.workers()
    names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids}
    shown = {Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode() for pid in pids}
    assert names == shown == {"rankd-worker-0", "rankd-worker-1"}
    assert [os.getpgid(pid) for pid in pids] == pids


def test_no_two_workers_make_the_same_ids(service: ServiceProcess) -> None:
    made: set[str] = set()

    def seen() -> bool:
        with httpx.Client(base_url=service.address) as client:  # each connection is somebody's
            answers = [client.post("/v1/rank/films", json=BODY).json()["id"] for _ in range(3)]
        assert not made & set(answers)
        made.update(answers)
        return len({one[:16] for one in made}) == 2

    until(seen)


def test_no_two_forks_draw_the_same_chances() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", CHANCE],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    one, other = (line.split() for line in ran.stdout.splitlines())
    assert len(one) == 7
    assert not set(one) & set(other)


@pytest.mark.fault("G11")
def test_a_killed_nursery_costs_no_answer_and_the_next_crash_is_known_and_replaced(
    service: ServiceProcess,
) -> None:
    before = service.workers()
    with Callers(service.address, 3) as callers:
        until(lambda: callers.codes["200"] > 20)
        os.kill(service.nursery(), signal.SIGKILL)
        asked = callers.codes["200"]
        until(lambda: callers.codes["200"] > asked + 50)
    assert set(callers.codes) == {"200"}
    assert service.workers() == before
    os.kill(before[0], signal.SIGSEGV)
    os.kill(before[1], signal.SIGSTOP)
    until(lambda: not set(before) & set(service.workers()))
    until(lambda: ready(service) == 2)
    restarts = metrics(service)  # no cause is unknown: whoever ended was the supervisor's child all along
    assert restarts['rankd_worker_restarts_total{cause="signal"}'] == 1
    assert restarts['rankd_worker_restarts_total{cause="hung"}'] == 1
    assert alive(service.nursery())


@pytest.mark.fault("G3")
def test_a_nursery_that_cannot_fork_now_says_so_and_goes_on(service: ServiceProcess) -> None:
    nursery, (killed, other) = service.nursery(), service.workers()
    said(service, b"")
    soft, hard = resource.prlimit(nursery, resource.RLIMIT_NOFILE)
    resource.prlimit(nursery, resource.RLIMIT_NOFILE, (len(opened(nursery)) + 4, hard))
    try:
        os.kill(killed, signal.SIGKILL)
        until(lambda: said(service, b"worker cannot be started now"))
        assert service.workers() == [other]
        assert httpx.post(f"{service.address}/v1/rank/films", json=BODY).status_code == 200
    finally:
        resource.prlimit(nursery, resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: ready(service) == 2)
    assert service.nursery() == nursery


@pytest.mark.slow
@pytest.mark.fault("G11")
def test_a_nursery_that_does_not_answer_is_replaced_while_the_others_serve(service: ServiceProcess) -> None:
    hanging = service.nursery()
    os.kill(hanging, signal.SIGSTOP)
    os.kill(service.workers()[0], signal.SIGKILL)
    with Callers(service.address, 2) as callers:
        until(lambda: not alive(hanging) and ready(service) == 2)
    assert callers.codes["200"] > 50
    assert callers.codes["lost"] <= 2


def test_a_workers_line_breaks_with_the_supervisor_though_its_sibling_lives(tmp_path: Path) -> None:
    body = json.dumps(BODY).encode()
    head = b"POST /v1/rank/films HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with two_workers(tmp_path) as service:
        pids = [service.nursery(), *service.workers()]
        with socket.create_connection(("127.0.0.1", int(service.address.rpartition(":")[2])), 10) as slow:
            slow.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body[:10])
            time.sleep(0.2)
            service.process.kill()
            until(lambda: sum(map(alive, pids)) == 1)
            slow.sendall(body[10:])  # which whoever waits for it is alive to answer
            assert slow.recv(64).startswith(b"HTTP/1.1 ")  # late as it may be
        until(lambda: not any(map(alive, pids)))


def test_sigterm_while_the_first_worker_is_waited_for_ends_the_service(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "rankd_service"],
        env=environment(
            REDIS_URL=f"redis://127.0.0.1:{free_port()}/0",
            RANKD_SERVER__PORT=str(free_port()),
            RANKD_SERVER__WORKERS="2",
            RANKD_MODELS__REPOSITORY=str(tmp_path),
        ),
        stderr=subprocess.PIPE,
    )
    until(lambda: len(ServiceProcess("", process).children()) == 1)
    process.terminate()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert b'"level":"error"' not in said


def test_where_a_thread_runs_that_a_fork_would_lose_workers_are_new_interpreters_and_it_is_said(
    tmp_path: Path,
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(THREAD)
    publish_bundle(tmp_path / "models")
    settings: dict[str, dict[str, object]] = {
        "models": {"repository": str(tmp_path / "models")},
        "server": {"workers": 2},
    }
    path = os.pathsep.join([str(tmp_path / "site"), environment()["PYTHONPATH"]])
    redis = f"redis://127.0.0.1:{free_port()}/0"
    with service_process(tmp_path, settings, PYTHONPATH=path, REDIS_URL=redis) as service:
        until(lambda: ready(service) == 2)
        assert httpx.post(f"{service.address}/v1/rank/films", json=BODY).status_code == 200
        assert said(service, b"workers share no memory")
