"""What is there to win where small requests share a run of the graph? Every ratio is within one run.

    scripts/demo --once && rankd demo --model infnet --prepare-only && python -m bench.batching

First the runtime alone: k requests of n candidates as k calls of `session.run` against one call for all,
joining and splitting included. Then the whole service, saturated by callers that ask again as soon as they
are answered (they and the store on the last core, the service on the first), with batching and without, in
turns: the processor time that the service spends on an answer, which other programs on the machine change
less than answers a second.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import uvloop
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.serving import bare_session, machine, spread
from rankd.cli.process import free_port, serving
from rankd.load.bodies import drawn_bodies
from rankd.load.peak import saturate
from rankd_contract.repository import open_current
from rankd_contract.schema import Entity, FeatureSchema
from rankd_contract.signature import ROW, SCORES, input_name, inputs
from rankd_service.features.embedded import EmbeddedStore
from rankd_service.inference.batch import Batch, join

SIZES, TOGETHER = (1, 5, 10, 20, 50, 100), (2, 4, 8)
CALLERS = 16
OFF, ON = "alone", "together"

console = Console()


def main() -> None:
    """Measure, print, and write the figures where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, default=Path(".rankd/demo"))
    parser.add_argument("--models", default="mlcc,infnet", help="with commas; each must be in HOME/bundles")
    parser.add_argument("--sizes", default="5,20,50,100", help="candidates of a request, for the service")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each round and kind")
    parser.add_argument("--out", type=Path, default=None, help="folder for batching.json and batching.md")
    options = parser.parse_args()
    ran_on = machine()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    models = options.models.split(",")
    runs = [row for model in models for row in runtime(options.home, model)]
    console.print(runtime_table(runs))
    sizes = [int(size) for size in options.sizes.split(",")]
    served = list(service(options.home, models, sizes, options.rounds, options.seconds))
    console.print(service_table(served))
    if options.out:
        command = shlex.join(["python", "-m", "bench.batching", *sys.argv[1:]])
        write({"command": command, "machine": ran_on, "runtime": runs, "service": served}, options.out)


def runtime(home: Path, model: str) -> Iterator[dict[str, Any]]:
    """Time runs one by one and joined, in turns."""
    schema, session = open_current(home / "bundles", model).schema, bare_session(home, model)
    for n in SIZES:
        for k in TOGETHER:
            requests = [random_request(schema, n, seed) for seed in range(k)]
            alone_us, together_us, difference = [], [], 0.0
            for _ in range(max(40, 1500 // (n * k))):
                began = time.perf_counter_ns()
                alone = [session.run((SCORES,), request)[0] for request in requests]
                between = time.perf_counter_ns()
                joined = join([Batch(request, np.zeros(n, np.int64)) for request in requests])
                (scores,) = session.run((SCORES,), joined.tensors)
                together = np.split(scores, k)
                together_us.append((time.perf_counter_ns() - between) / 1000 / k)
                alone_us.append((between - began) / 1000 / k)
                apart = [np.abs(a - b).max() for a, b in zip(alone, together, strict=True)]
                difference = max(difference, *map(float, apart))
            figures = {"alone_us": statistics.median(alone_us), "together_us": statistics.median(together_us)}
            yield {"model": model, "candidates": n, "requests": k, **figures, "difference": difference}


def random_request(schema: FeatureSchema, n: int, seed: int) -> dict[str, NDArray[Any]]:
    """One user's request, drawn within the schema's ranges."""
    rng = np.random.default_rng(seed)
    request: dict[str, NDArray[Any]] = {ROW: np.zeros(n, np.int64)}
    for entity in Entity:
        layout, rows = schema.layout(entity), n if entity is Entity.ITEM else 1
        highest = [schema.cardinality(f.field) for f in layout.fields for _ in range(f.field.num_ids)]
        request[input_name(entity, "ids")] = rng.integers(0, highest, (rows, layout.num_ids)).astype(np.int32)
        request[input_name(entity, "values")] = rng.normal(size=(rows, layout.num_values)).astype(np.float32)
    return {spec.name: request[spec.name] for spec in inputs(schema)}


def service(
    home: Path, models: list[str], sizes: list[int], rounds: int, seconds: float
) -> Iterator[dict[str, Any]]:
    """Saturate two services over one store in turns: one that joins requests, one that does not."""
    asked = json.loads((home / "request.json").read_text(encoding="utf-8"))
    with ExitStack() as stack:
        stack.enter_context(EmbeddedStore.attach_or_start(home / "store"))
        services = {kind: stack.enter_context(one_service(home, kind)) for kind in (OFF, ON)}
        for model in models:
            for n in sizes:
                draw: dict[str, Any] = {"zipf": 1.1, "count": 256, "seed": 1, "settings": {}}
                bodies = drawn_bodies([asked["user"]], asked["item_ids"], n, **draw)
                for one in services.values():
                    one_round(one, model, bodies, seconds)
                before = batches(services[ON].port, model)
                found = [
                    {kind: one_round(one, model, bodies, seconds) for kind, one in services.items()}
                    for _ in range(rounds)
                ]
                after = batches(services[ON].port, model)
                count, requests = (a - b for a, b in zip(after, before, strict=True))
                yield {
                    "model": model,
                    "candidates": n,
                    "requests_a_batch": requests / max(1, count),
                    "ratio": spread([f[OFF].cpu_us / f[ON].cpu_us for f in found]),
                    **{
                        name: {
                            kind: statistics.median(getattr(f[kind], name) for f in found)
                            for kind in services
                        }
                        for name in ("cpu_us", "rate", "p50_ms", "p99_ms")
                    },
                }


@dataclass(frozen=True)
class Served:
    """A service that runs."""

    pid: int
    port: int

    def cpu_us(self) -> float:
        """Processor time of all its threads so far."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1000


@contextmanager
def one_service(home: Path, kind: str) -> Iterator[Served]:
    """Serve on the first core, with batching for everything or for nothing."""
    os.environ["RANKD_BATCHING__MAX_CANDIDATES"] = "0" if kind == OFF else "1000"
    port = free_port()
    with serving(home, home / "bundles", port) as (process, _):
        for thread in Path(f"/proc/{process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {0})
        yield Served(process.pid, port)


@dataclass(frozen=True)
class Round:
    """One round: processor time an answer, answers a second, and how long they took."""

    cpu_us: float
    rate: float
    p50_ms: float
    p99_ms: float


def one_round(at: Served, model: str, bodies: list[bytes], seconds: float) -> Round:
    """Keep all callers waiting for that long."""
    began_us = at.cpu_us()
    url = f"http://127.0.0.1:{at.port}/v1/rank/{model}"
    found = uvloop.run(saturate(url, bodies, CALLERS, seconds))
    p50, p99 = np.percentile(found.taken_s, (50, 99)) * 1000
    return Round((at.cpu_us() - began_us) / len(found.taken_s), found.rate, float(p50), float(p99))


def batches(port: int, model: str) -> tuple[float, float]:
    """Read how many batches there were so far, and how many requests in them."""
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:  # our own service
        lines = answer.read().decode().splitlines()
    found = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}
    count, total = (f'rankd_batch_requests_{end}{{model="{model}"}}' for end in ("count", "sum"))
    return found[count], found[total]


def runtime_table(runs: list[dict[str, Any]]) -> Table:
    """Lay the runtime's part out for people."""
    title = "the runtime alone, us a request: each in a run of its own / all in one run"
    grid = Table("model", title=title, box=None)
    grid.add_column("candidates", justify="right")
    for k in TOGETHER:
        grid.add_column(f"{k} requests", justify="right")
    for model in dict.fromkeys(run["model"] for run in runs):
        for n in SIZES:
            row = [run for run in runs if (run["model"], run["candidates"]) == (model, n)]
            cells = (
                f"{r['alone_us']:.0f} / {r['together_us']:.0f} = {r['alone_us'] / r['together_us']:.2f}"
                for r in row
            )
            grid.add_row(model, str(n), *cells)
    return grid


def service_table(served: list[dict[str, Any]]) -> Table:
    """Lay the service's part out for people."""
    title = f"the whole service, one process, saturated by {CALLERS} callers: alone / together"
    grid = Table("model", title=title, box=None)
    for name in ("candidates", "CPU us an answer", "ratio (min to max)", "answers/s", "p50 ms", "p99 ms"):
        grid.add_column(name, justify="right")
    grid.add_column("requests a batch", justify="right")
    for one in served:
        ratio = one["ratio"]
        grid.add_row(
            one["model"],
            str(one["candidates"]),
            f"{one['cpu_us'][OFF]:.0f} / {one['cpu_us'][ON]:.0f}",
            f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})",
            f"{one['rate'][OFF]:.0f} / {one['rate'][ON]:.0f}",
            *(f"{one[p][OFF]:.0f} / {one[p][ON]:.0f}" for p in ("p50_ms", "p99_ms")),
            f"{one['requests_a_batch']:.1f}",
        )
    return grid


# Why the default of `batching.max_candidates` is what it is.
READING = """
The fixed part of a run is what requests share, so the gain is largest for the smallest and for graphs of many
small operations; joining and splitting cost 5 to 15 us a batch and are included. In the whole service more is
saved than in the runtime, since requests in one turn of the event loop share that as well. Where a request
has 100 candidates the gain is no larger than the spread, and a batch only lengthens the wait of its first:
`batching.max_candidates` is 50 by default. A request that nobody else is beside is never held back. Scores of
a batch differ from those of requests alone by what onnxruntime's matrix products differ by for other numbers
of rows: {difference:.0e} at most here; no row of one request is ever read for another.
"""


def write(report: dict[str, Any], folder: Path) -> None:
    """Write batching.json, and batching.md for people."""
    report = {**report, "date": datetime.now(UTC).date().isoformat()}
    (folder / "batching.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    page = Console(file=StringIO(), width=140)
    page.print(runtime_table(report["runtime"]))
    page.print(service_table(report["service"]))
    assert isinstance(page.file, StringIO)
    text = "\n".join(line.rstrip() for line in page.file.getvalue().splitlines())
    made = f"`{report['command']}`, {report['date']}, {report['machine']}"
    reading = READING.format(difference=max(run["difference"] for run in report["runtime"]))
    head = f"# Small requests that share a run\n\n{made}\n{reading.rstrip()}"
    (folder / "batching.md").write_text(f"{head}\n\n```\n{text}\n```\n", encoding="utf-8")


if __name__ == "__main__":
    main()
