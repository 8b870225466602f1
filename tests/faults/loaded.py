"""A service on a core of its own, how to load it from another, and what to make of what came back."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import uvloop
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from rankd.load.arrivals import Arrivals, due_times
from rankd.load.peak import saturate
from rankd.load.sender import Outcome, send_all
from rankd_contract.schema_file import parse_schema
from tests.support.bundles import SCHEMA_TEXT, item_rows, publish_bundle, sleepy, user_rows
from tests.support.process import ServiceProcess, service_process
from tests.support.valkey import Valkey

__all__ = [
    "DEADLINE_MS",
    "ITEMS",
    "PATH",
    "ROW_US",
    "SCHEMA",
    "USERS",
    "Loaded",
    "N",
    "in_time",
    "ms",
    "samples",
    "serving",
    "share_in_time",
    "statuses",
]

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


def in_time(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [o for o in outcomes if o.status == 200 and ms(o) <= DEADLINE_MS]


def share_in_time(outcomes: Sequence[Outcome]) -> float:
    return round(len(in_time(outcomes)) / max(1, len(outcomes)), 4)


def ms(outcome: Outcome) -> float:
    return 1000 * (outcome.done_s - outcome.due_s)


def statuses(outcomes: Sequence[Outcome]) -> Counter[int]:
    return Counter(o.status for o in outcomes)


@contextmanager
def serving(folder: Path) -> Iterator[Loaded]:
    """Serve on the first core and leave the others to this process and the store; there must be two."""
    cores = sorted(os.sched_getaffinity(0))
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
