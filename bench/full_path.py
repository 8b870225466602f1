"""What does a whole request by ids cost beside the graph alone, written as the paper prints the model?

    PYTHONPATH=. python bench/full_path.py --out docs/results          # five minutes on two cores

Ids in over HTTP, features from the store, scores out as JSON, against `session.run` of the same model's
naive graph (one table a field, the user repeated for every candidate, the equations as they are printed) on
the same features in this process: 500 candidates, in turns, one thread each. `uncached` keeps no row near at
hand, `warm` has every item's, and its part of the scores, `int8` is warm with linear layers in eight bits.
All give the naive graph's scores, which is checked. The service has a core, store and caller another. Ratios
count, microseconds depend on the machine.

Then what two processes answer a second, with both cores for everything and four callers that are never
without a request, beside two processes that do nothing but run the naive graph.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import onnx
from numpy.typing import NDArray
from rich.console import Console

from bench.export import session
from bench.models import build, request_of, schema_of, tensors
from bench.naive import Naive, naive_onnx, tiled
from bench.serving import Connection, graph_inputs, made_by, p50_us, spread
from bench.untrained import fill, published
from rankd_contract.signature import SCORES
from rankd_export.graph import to_onnx
from rankd_export.precision import GOLDEN_TOLERANCE, Precision
from rankd_service.features.embedded import EmbeddedStore
from tests.support.process import ServiceProcess, service_process

CANDIDATES, ITEMS, BODIES = 500, 5000, 40
SECONDS, CALLERS = 1.0, 4  # two callers a process: one's answer is on its way while the other's is made


@dataclass(frozen=True)
class Way:
    """How much of each view is kept near at hand, in what precision the graph is, and that in words."""

    near_mb: int
    precision: Precision
    kept: str


WAYS = {
    "uncached": Way(0, Precision.FP32, "none"),
    "warm": Way(256, Precision.FP32, "all, and parts"),
    "int8": Way(256, Precision.INT8, "all, and parts; int8"),
}
# How much of the naive graph's time a whole request may take; how many times its answers two processes give.
TARGETS: dict[str, dict[str, float]] = {
    "mlcc": {"uncached": 1.0, "warm": 0.75, "int8": 0.5},
    "dcnv2": {"warm": 0.9},
    "armnet": {"warm": 0.9},
    "infnet": {"warm": 0.9},
}
OF_TWO = ("mlcc", "dcnv2")
TARGETS_OF_TWO = {"uncached": 0.9, "warm": 1.3, "int8": 1.8}

console = Console(width=180)


def main() -> None:
    """Measure, print, and write the figures where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=",".join(TARGETS), help="with commas")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=None, help="folder for full-path.json and .md")
    options = parser.parse_args()
    rows = []
    for name in options.models.split(","):
        with subject(name) as one:
            latency = latencies(one, options.rounds)
            # Two naive graphs of the others answered a fraction of what their p50 allows; why is not known.
            rate = rates(one, options.rounds) if name in OF_TWO else {way: {} for way in WAYS}
        for way in WAYS:
            row = {"model": name, "way": way, **latency[way], **rate[way]}
            console.print(row)
            rows.append(row)
    report = {
        **made_by("full_path.py"),
        "candidates": CANDIDATES,
        "rows": rows,
    }
    if options.out:
        (options.out / "full-path.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        (options.out / "full-path.md").write_text(page(report), encoding="utf-8")


@dataclass(frozen=True)
class Subject:
    """One model, published in each way, with the naive graph beside it, and what both are asked."""

    name: str
    home: Path
    store: EmbeddedStore
    naive: onnx.ModelProto
    feeds: list[dict[str, NDArray[Any]]]
    asked: list[dict[str, Any]]

    @contextmanager
    def service(self, way: str, workers: int) -> Iterator[ServiceProcess]:
        """Serve the model."""
        own = self.home / f"{way}-{workers}"
        own.mkdir()
        settings: dict[str, dict[str, object]] = {
            "models": {"repository": str(self.home / WAYS[way].precision.value)},
            "features": {"near_cache_mb": WAYS[way].near_mb},
            "server": {"workers": workers, "log_level": "error"},
        }
        with service_process(own, settings, REDIS_URL=self.store.url) as service:
            scores = session(self.naive).run([SCORES], self.feeds[0])[0]
            check(self.asks(service)[0](), scores, self.asked[0], GOLDEN_TOLERANCE[WAYS[way].precision])
            yield service

    def asks(self, service: ServiceProcess) -> list[Callable[[], bytes]]:
        """Return what sends each request, on a connection of its own."""
        port = urlsplit(service.address).port or 0
        sent = [json.dumps(asked).encode() for asked in self.asked]
        return [Connection(port, f"/v1/rank/{self.name}", one).call for one in sent]


@contextmanager
def subject(name: str) -> Iterator[Subject]:
    """Build a model that was never trained, and publish it."""
    schema = schema_of(name)
    model = build(name, schema)
    graph = to_onnx(model, schema, tensors(request_of(schema, 6, 3, seed=1)))
    with tempfile.TemporaryDirectory(prefix="rankd-") as folder, ExitStack() as stack:
        home = Path(folder)
        for precision in {way.precision for way in WAYS.values()}:
            published(home / precision.value, name, schema, graph, precision)
        store = stack.enter_context(EmbeddedStore(home / "store"))
        fill(store.url, schema, ITEMS)
        asked = [body(seed) for seed in range(BODIES)]
        feeds = [tiled(asyncio.run(graph_inputs(schema, store.url, one))) for one in asked]
        yield Subject(
            name, home, store, naive_onnx(Naive(model), request_of(schema, 6, 1, seed=1)), feeds, asked
        )


def latencies(one: Subject, rounds: int) -> dict[str, dict[str, Any]]:
    """Ask one process of each way in turns with the naive graph: p50 of one caller."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})  # with the store; where a scheduler moves them, times have two peaks
    naive = session(one.naive)
    with ExitStack() as stack:
        calls = {"naive": in_turns([partial(naive.run, [SCORES], feed) for feed in one.feeds])}
        for way in WAYS:
            service = stack.enter_context(one.service(way, 1))
            pin(service.process.pid, cores[0])
            calls[way] = in_turns(one.asks(service))
        for call in calls.values():
            for _ in range(3 * BODIES):  # from here on every item is near at hand, its part computed
                call()
        found = [{way: p50_us(call, 2 * BODIES) for way, call in calls.items()} for _ in range(rounds)]
    os.sched_setaffinity(0, set(cores))
    return {
        way: {
            "request_us": round(statistics.median(each[way] for each in found)),
            "naive_us": round(statistics.median(each["naive"] for each in found)),
            "ratio": rounded([each[way] / each["naive"] for each in found]),
            "target": TARGETS.get(one.name, {}).get(way),
        }
        for way in WAYS
    }


def rates(one: Subject, rounds: int) -> dict[str, dict[str, Any]]:
    """Ask two processes of each way as much as they can answer, in turns with two of the naive graph."""
    with ExitStack() as stack:
        ways: dict[str, Callable[[], float]] = {"naive": stack.enter_context(two_bare(one)).rate}
        for way in WAYS:
            asks = one.asks(stack.enter_context(one.service(way, 2)))
            shares = [in_turns(asks[n::CALLERS]) for n in range(CALLERS)]
            ways[way] = partial(answers_a_second, shares)
        for rate in ways.values():
            rate()
        found = [{way: rate() for way, rate in ways.items()} for _ in range(rounds)]
    return {
        way: {
            "a_second": round(statistics.median(each[way] for each in found)),
            "naive_a_second": round(statistics.median(each["naive"] for each in found)),
            "times": rounded([each[way] / each["naive"] for each in found]),
            "times_target": TARGETS_OF_TWO[way],
        }
        for way in WAYS
    }


def answers_a_second(calls: Sequence[Callable[[], object]]) -> float:
    """Make each call again and again, all at once -> how many were answered a second."""
    until = time.perf_counter() + SECONDS
    answered = [0] * len(calls)

    def ask(caller: int) -> None:
        while time.perf_counter() < until:
            calls[caller]()
            answered[caller] += 1

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(answered) / SECONDS


class TwoBare:
    """Two processes that run the naive graph when told to."""

    def __init__(self, pipes: Sequence[Pipe]) -> None:
        """Take their lines."""
        self._pipes = pipes

    def rate(self) -> float:
        """Runs a second of both."""
        for pipe in self._pipes:
            pipe.send(SECONDS)
        return sum(pipe.recv() for pipe in self._pipes) / SECONDS


@contextmanager
def two_bare(one: Subject) -> Iterator[TwoBare]:
    """Start them."""
    context = multiprocessing.get_context("spawn")
    lines = [context.Pipe() for _ in range(2)]
    processes = [
        context.Process(target=run_bare, args=(theirs, one.naive, one.feeds), daemon=True)
        for _, theirs in lines
    ]
    for process in processes:
        process.start()
    try:
        yield TwoBare([ours for ours, _ in lines])
    finally:
        for process in processes:
            process.kill()
            process.join()


def run_bare(pipe: Pipe, graph: onnx.ModelProto, feeds: Sequence[dict[str, NDArray[Any]]]) -> None:
    """Run the graph for as long as is asked, and say how often that was."""
    run = in_turns([partial(session(graph).run, [SCORES], feed) for feed in feeds])
    while True:
        seconds, runs = pipe.recv(), 0
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            run()
            runs += 1
        pipe.send(runs)


def pin(pid: int, core: int) -> None:
    """Keep a process, all its threads, on one core."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def body(seed: int) -> dict[str, Any]:
    """A request for the ten best of 500 items; no two are alike."""
    items = np.random.default_rng(seed).choice(ITEMS, CANDIDATES, replace=False).tolist()
    return {"user": f"u{seed}", "item_ids": [f"i{n}" for n in items], "context": {"hour": 7}, "top_k": 10}


def in_turns(calls: Sequence[Callable[[], object]]) -> Callable[[], object]:
    """Return what makes one call after the other, from the first again after the last."""
    following = itertools.cycle(calls)

    def call() -> object:
        return next(following)()

    return call


def rounded(values: list[float]) -> dict[str, float]:
    """Median, least and most, to be read."""
    return {key: round(value, 2) for key, value in spread(values).items()}


def check(answer: bytes, scores: NDArray[np.float32], asked: dict[str, Any], apart: float) -> None:
    """End the benchmark where the two sides did not score the same."""
    found = json.loads(answer)
    assert not found["degraded"], found["degraded"]
    by_id = dict(zip(asked["item_ids"], scores[:, 0].tolist(), strict=True))
    task = next(iter(found["items"][0]["scores"]))
    worst = max(abs(item["scores"][task] - by_id[item["id"]]) for item in found["items"])
    assert worst < apart, f"the service and the naive graph differ by {worst}"


def page(report: Mapping[str, Any]) -> str:
    """Write the report for people."""
    lines = [
        "# A whole request beside the naive graph\n",
        f"`{report['command']}`, {report['date']}, {report['machine']}. {report['candidates']} candidates by "
        "id, the ten best answered; in turns with `session.run` of the same model's naive graph, in float32. "
        "Left one process and one connection, p50: below 1, a whole request with its features, HTTP and JSON "
        "takes less than the bare runtime on a graph that was exported as the paper prints the model. Right "
        f"what two processes answer {CALLERS} callers a second, on two cores that these and the store share, "
        "beside two processes that do nothing but run the naive graph.\n",
        "| model | rows near at hand | request, us | naive, us | ratio | range | target | two, a second | "
        "naive | times | range | target |",
        "|" + " --- |" * 12,
    ]
    for row in report["rows"]:
        ratio, times = row["ratio"], row.get("times")
        of_two = "|" * 5
        if times is not None:
            of_two = (
                f" {row['a_second']} | {row['naive_a_second']} | **{times['median']}** | "
                f"{times['min']} to {times['max']} | {row['times_target']} |"
            )
        lines.append(
            f"| {row['model']} | {WAYS[row['way']].kept} | {row['request_us']} | {row['naive_us']} | "
            f"**{ratio['median']}** | {ratio['min']} to {ratio['max']} | {row['target'] or ''} |{of_two}"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
