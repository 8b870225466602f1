"""A service of several workers, and its processes as the system shows them."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx

from tests.support.bundles import publish_bundle
from tests.support.process import ServiceProcess, service_process
from tests.support.server import free_port

__all__ = ["BODY", "Callers", "alive", "metrics", "ready", "two_workers", "until"]

PATIENCE_S = 30.0
BODY = {"user": "1", "item_ids": [str(i) for i in range(100)]}


@contextmanager
def two_workers(folder: Path, **server: object) -> Iterator[ServiceProcess]:
    """Serve a small model by two workers, with no store, until the block ends; both are ready."""
    publish_bundle(folder / "models")
    settings: dict[str, dict[str, object]] = {
        "models": {"repository": str(folder / "models")},
        "server": {"workers": 2, **server},
    }
    with service_process(folder, settings, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0") as running:
        until(lambda: ready(running) == 2)
        yield running


def until(holds: Callable[[], bool]) -> None:
    """Look again and again until it holds."""
    give_up = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def ready(service: ServiceProcess) -> int:
    """How many workers are ready; 0 where nobody answers."""
    with suppress(httpx.TransportError):
        return int(httpx.get(f"{service.address}/readyz", timeout=5).json()["workers"]["ready"])
    return 0


def alive(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def metrics(service: ServiceProcess) -> dict[str, float]:
    """Every counter and histogram series."""
    text = httpx.get(f"{service.address}/metrics", timeout=5).raise_for_status().text
    lines = re.findall(r"^(rankd_\w+?(?:_total|_bucket|_count|_sum)(?:\{.*\})?) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in lines}


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
