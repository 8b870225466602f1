"""What does a whole request by ids cost beside the graph alone, written as the paper prints the model?

    PYTHONPATH=. python bench/full_path.py --out docs/results          # five minutes on two cores

Ids in over HTTP, features from the store, scores out as JSON, against `session.run` of the same model's
naive graph (one table a field, the user repeated for every candidate, the equations as they are printed) on
the same features in this process: 500 candidates, in turns, one thread each. `uncached` keeps no row near at
hand, `warm` has every item's, and its part of the scores. Both give the naive graph's scores, which is
checked. The service has a core, store and caller another. Ratios count, microseconds depend on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from bench.export import session
from bench.models import build, request_of, schema_of, tensors
from bench.naive import Naive, naive_onnx, tiled
from bench.serving import Connection, graph_inputs, machine, p50_us, spread
from bench.untrained import fill, published
from rankd_contract.signature import SCORES
from rankd_export.graph import to_onnx
from rankd_service.features.embedded import EmbeddedStore
from tests.support.process import service_process

CANDIDATES, ITEMS, BODIES = 500, 5000, 40
MOST_APART = 1e-5
# How much of the naive graph's time a whole request may take.
TARGETS = {"mlcc": (1.0, 0.75), "dcnv2": (None, 0.9), "armnet": (None, 0.9), "infnet": (None, 0.9)}
WAYS = {"uncached": 0, "warm": 256}

console = Console(width=160)


def main() -> None:
    """Measure, print, and write the figures where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=",".join(TARGETS), help="with commas")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=None, help="folder for full-path.json and .md")
    options = parser.parse_args()
    rows = [row for name in options.models.split(",") for row in measured(name, options.rounds)]
    report = {
        "command": shlex.join(["python", "bench/full_path.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "candidates": CANDIDATES,
        "rows": rows,
    }
    if options.out:
        (options.out / "full-path.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        (options.out / "full-path.md").write_text(page(report), encoding="utf-8")


def measured(name: str, rounds: int) -> Iterator[dict[str, Any]]:
    """Serve one model both ways, and ask in turns with the naive graph."""
    schema = schema_of(name)
    model = build(name, schema)
    graph = to_onnx(model, schema, tensors(request_of(schema, 6, 3, seed=1)))
    naive = session(naive_onnx(Naive(model), request_of(schema, 6, 1, seed=1)))
    bodies = [body(seed) for seed in range(BODIES)]
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})  # with the store; where a scheduler moves them, times have two peaks
    with tempfile.TemporaryDirectory(prefix="rankd-") as folder, ExitStack() as stack:
        home = Path(folder)
        published(home / "bundles", name, schema, graph)
        store = stack.enter_context(EmbeddedStore(home / "store"))
        fill(store.url, schema, ITEMS)
        feeds = [tiled(asyncio.run(graph_inputs(schema, store.url, asked))) for asked in bodies]
        calls = {"naive": in_turns([partial(naive.run, [SCORES], feed) for feed in feeds])}
        for way, near_mb in WAYS.items():
            settings: dict[str, dict[str, object]] = {
                "models": {"repository": str(home / "bundles")},
                "features": {"near_cache_mb": near_mb},
            }
            (home / way).mkdir()
            service = stack.enter_context(service_process(home / way, settings, REDIS_URL=store.url))
            pin(service.process.pid, cores[0])
            port = urlsplit(service.address).port or 0
            sent = [json.dumps(asked).encode() for asked in bodies]
            asks = [Connection(port, f"/v1/rank/{name}", one).call for one in sent]
            check(asks[0](), naive.run([SCORES], feeds[0])[0], bodies[0])
            calls[way] = in_turns(asks)
        for call in calls.values():
            for _ in range(3 * BODIES):  # from here on every item is near at hand, its part computed
                call()
        found = [{way: p50_us(call, 2 * BODIES) for way, call in calls.items()} for _ in range(rounds)]
    os.sched_setaffinity(0, set(cores))
    for way, target in zip(WAYS, TARGETS.get(name, (None, None)), strict=True):
        ratio = spread([one[way] / one["naive"] for one in found])
        row = {
            "model": name,
            "way": way,
            "request_us": round(statistics.median(one[way] for one in found)),
            "naive_us": round(statistics.median(one["naive"] for one in found)),
            "ratio": {key: round(value, 2) for key, value in ratio.items()},
            "target": target,
        }
        console.print(row)
        yield row


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


def check(answer: bytes, scores: NDArray[np.float32], asked: dict[str, Any]) -> None:
    """End the benchmark where the two sides did not score the same."""
    found = json.loads(answer)
    assert not found["degraded"], found["degraded"]
    by_id = dict(zip(asked["item_ids"], scores[:, 0].tolist(), strict=True))
    task = next(iter(found["items"][0]["scores"]))
    worst = max(abs(item["scores"][task] - by_id[item["id"]]) for item in found["items"])
    assert worst < MOST_APART, f"the service and the naive graph differ by {worst}"


def page(report: Mapping[str, Any]) -> str:
    """Write the report for people."""
    lines = [
        "# A whole request beside the naive graph\n",
        f"`{report['command']}`, {report['date']}, {report['machine']}. {report['candidates']} candidates by "
        "id, one process, one connection, the ten best answered; p50 in turns with `session.run` of the same "
        "model's naive graph. Below 1, a whole request with its features, HTTP and JSON takes less than the "
        "bare runtime on a graph that was exported as the paper prints the model.\n",
        "| model | rows near at hand | request, us | naive graph, us | ratio | min to max | target |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    near = {"uncached": "none", "warm": "all, and parts"}
    for row in report["rows"]:
        ratio = row["ratio"]
        lines.append(
            f"| {row['model']} | {near[row['way']]} | {row['request_us']} | {row['naive_us']} | "
            f"**{ratio['median']}** | {ratio['min']} to {ratio['max']} | {row['target'] or ''} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
