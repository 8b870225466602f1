"""Letter G of the fault matrix: how a process ends, and that nobody's answer is lost by it."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.bundles import publish_bundle
from tests.support.process import ServiceProcess, service_process
from tests.support.server import free_port

pytestmark = pytest.mark.fault
BODY = {"user": "1", "item_ids": [str(i) for i in range(200)]}


def serving(repository: Path, lame_duck_s: float) -> dict[str, dict[str, object]]:
    return {"models": {"repository": str(repository)}, "server": {"lame_duck_s": lame_duck_s}}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    publish_bundle(tmp_path / "models")
    settings = serving(tmp_path / "models", lame_duck_s=0.5)
    with service_process(tmp_path, settings, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0") as running:
        yield running


def ask_until_refused(address: str, codes: Counter[str]) -> None:
    """Ask on one connection that is kept, as callers do, until sent away."""
    with httpx.Client(base_url=address, timeout=10) as client:
        while True:
            try:
                answer = client.post("/v1/rank/films", json=BODY)
            except httpx.ConnectError:  # nobody listens any more, so nothing was accepted
                codes["not accepted"] += 1
                return
            except httpx.TransportError as error:
                codes[f"lost: {error!r}"] += 1
                return
            if answer.status_code == 503 and answer.json()["error"]["code"] == "DEADLINE_INFEASIBLE":
                codes["busy"] += 1  # as a machine may be that has other things to do
                continue
            codes[str(answer.status_code)] += 1
            if answer.status_code == 503:
                assert answer.json()["error"]["code"] == "DRAINING"
                assert int(answer.headers["retry-after"]) >= 1
                return


@pytest.mark.fault("G1")
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "a closed terminal"])
def test_sigterm_under_load_loses_no_answer(service: ServiceProcess, sign: signal.Signals) -> None:
    codes: Counter[str] = Counter()
    callers = [threading.Thread(target=ask_until_refused, args=(service.address, codes)) for _ in range(8)]
    for caller in callers:
        caller.start()
    while codes["200"] < 50:
        time.sleep(0.01)
    began = time.monotonic()
    service.process.send_signal(sign)
    for caller in callers:
        caller.join(timeout=20)
    assert service.process.wait(timeout=20) == 0
    assert time.monotonic() - began < 10
    assert set(codes) <= {"200", "503", "busy", "not accepted"}, codes
    assert codes["503"] == len(callers)


@pytest.mark.slow
@pytest.mark.fault("G1")
def test_sigterm_loses_nobody_who_connects_anew_either(service: ServiceProcess) -> None:
    """Whoever is refused comes again, on a new connection, until nobody listens."""
    codes: Counter[str] = Counter()

    def ask_again() -> None:
        before = codes["not accepted"] + codes["lost"]
        while codes["not accepted"] + codes["lost"] == before:
            ask_until_refused(service.address, codes)
            codes["lost"] = sum(n for what, n in codes.items() if what.startswith("lost:"))

    callers = [threading.Thread(target=ask_again) for _ in range(24)]
    for caller in callers:
        caller.start()
    while codes["200"] < 50:
        time.sleep(0.01)
    service.process.send_signal(signal.SIGTERM)
    for caller in callers:
        caller.join(timeout=20)
    assert service.process.wait(timeout=20) == 0
    assert not [what for what in codes if what.startswith("lost:")], codes


@pytest.mark.fault("G1")
def test_after_sigterm_it_is_alive_and_not_ready_at_once(service: ServiceProcess) -> None:
    with httpx.Client(base_url=service.address) as client:
        service.process.send_signal(signal.SIGTERM)
        state = client.get("/livez").json()["state"]
        ready = client.get("/readyz")
    assert (state, ready.status_code, ready.json()["state"]) == ("draining", 503, "draining")


@pytest.mark.fault("G1")
def test_a_request_that_is_half_sent_at_sigterm_is_answered(service: ServiceProcess) -> None:
    body = json.dumps(BODY).encode()
    host, port = service.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        head = b"POST /v1/rank/films HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        slow.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body[:10])
        time.sleep(0.1)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        slow.sendall(body[10:])
        assert slow.recv(1 << 16).startswith((b"HTTP/1.1 200", b"HTTP/1.1 503"))


@pytest.mark.fault("G2")
def test_a_second_sigterm_ends_it_and_says_what_it_abandoned(tmp_path: Path) -> None:
    publish_bundle(tmp_path / "models")
    settings = serving(tmp_path / "models", lame_duck_s=30)
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    with service_process(tmp_path, settings, REDIS_URL=nowhere) as service:
        host, port = service.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as slow:
            head = b"POST /v1/rank/films HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            slow.sendall(head + b"Content-Length: 100\r\n\r\n{")
            time.sleep(0.2)
            began = time.monotonic()
            for _ in range(2):
                os.kill(service.process.pid, signal.SIGTERM)
                time.sleep(0.2)
            _, written = service.process.communicate(timeout=10)
        assert time.monotonic() - began < 5
        lines = [json.loads(line) for line in written.decode().splitlines()]
        assert [line["requests"] for line in lines if line["message"] == "requests were abandoned"] == [1]
