"""Two workers with one thread each, or one worker with two threads? Small requests and large ones.

    PYTHONPATH=. python bench/workers.py --out docs/results

Services run at once over one bundle, none with a store, and are asked in turns (for memory one at a time).
One caller shows what a single request takes, eight show how many are answered. What else runs on the machine
only ever makes a round worse, so the best round of each is compared; how far the median round is from it
shows how quiet it was.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.serving import Connection
from tests.support.bundles import mlp, publish_bundle
from tests.support.process import ServiceProcess, service_process
from tests.support.server import free_port

PLANS = ((1, 1), (1, 2), (2, 1))
SIZES = (20, 500, 2000)
SECONDS = 0.5
MEMORY_OF, ASKED_S = (1, 2, 3, 4), 8.0  # what is asked for is written to, and then no more shared


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None, help="folder for workers.json and workers.md")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        publish_bundle(folder / "models", graph=mlp(256, 3))
        services = {plan: stack.enter_context(service(folder, *plan)) for plan in PLANS}
        rounds = [
            {
                (plan, size): (latency_ms(one, size), throughput(one, size))
                for size in SIZES
                for plan, one in services.items()
            }
            for _ in range(options.rounds)
        ]
    pss = {str(workers): memory_alone_mib(workers) for workers in MEMORY_OF}
    grid = Table(
        "candidates", "workers", "threads", "p50, 1 caller", "ratio", "8 callers", "ratio", "noise", box=None
    )
    rows = []
    for size in SIZES:
        took = {plan: min(r[plan, size][0] for r in rounds) for plan in PLANS}
        done = {plan: max(r[plan, size][1] for r in rounds) for plan in PLANS}
        for plan in PLANS:
            noise = statistics.median(r[plan, size][0] for r in rounds) / took[plan]
            row = {
                "candidates": size,
                "workers": plan[0],
                "threads": plan[1],
                "p50_ms": took[plan],
                "p50_ratio": took[plan] / took[PLANS[0]],
                "per_s": done[plan],
                "per_s_ratio": done[plan] / done[PLANS[0]],
                "median_p50_to_best": noise,
            }
            rows.append(row)
            cells = (f"{row['p50_ms']:.2f} ms", f"{row['p50_ratio']:.2f}", f"{row['per_s']:.0f}/s")
            grid.add_row(str(size), *map(str, plan), *cells, f"{row['per_s_ratio']:.2f}", f"{noise:.1f}")
    memory = Table("workers", "PSS of all its processes", "more than one fewer", box=None)
    for workers, mib in pss.items():
        memory.add_row(workers, f"{mib:.0f} MiB", f"{mib - pss.get(str(int(workers) - 1), 0.0):.0f} MiB")
    Console().print(grid, memory)
    if options.out:
        write(options.out, options.rounds, rows, pss, grid, memory)


def service(folder: Path, workers: int, threads: int) -> Any:
    """Start one service of a plan, in a folder of its own."""
    own = folder / f"{workers}x{threads}"
    own.mkdir()
    settings: dict[str, dict[str, object]] = {
        "models": {"repository": str(folder / "models")},
        "server": {"workers": workers, "log_level": "error"},
        "inference": {"threads": threads},
        "limits": {"default_deadline_ms": 5000},
    }
    return service_process(own, settings, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")


def connection(one: ServiceProcess, size: int) -> Connection:
    """Open a connection that asks for so many candidates."""
    body = {"user": "1", "item_ids": [str(i) for i in range(size)], "top_k": 10}
    return Connection(int(one.address.rpartition(":")[2]), "/v1/rank/films", json.dumps(body).encode())


def latency_ms(one: ServiceProcess, size: int) -> float:
    """Median of one caller's requests."""
    asked, took = connection(one, size), []
    give_up = time.perf_counter() + SECONDS
    while time.perf_counter() < give_up:
        began = time.perf_counter()
        asked.call()
        took.append(time.perf_counter() - began)
    return 1000 * statistics.median(took)


def throughput(one: ServiceProcess, size: int) -> float:
    """Requests a second that eight callers get answered."""
    answered = [0] * 8
    give_up = time.perf_counter() + SECONDS

    def ask(caller: int) -> None:
        asked = connection(one, size)
        while time.perf_counter() < give_up:
            asked.call()
            answered[caller] += 1

    callers = [threading.Thread(target=ask, args=(n,)) for n in range(len(answered))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return sum(answered) / SECONDS


def memory_alone_mib(workers: int) -> float:
    """Memory of a service that has answered for a while, with no other of them there to share with."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        publish_bundle(folder / "models", graph=mlp(256, 3))
        with service(folder, workers, 1) as one:
            give_up = time.perf_counter() + ASKED_S
            while time.perf_counter() < give_up:
                throughput(one, 100)
            return memory_mib(one)


def memory_mib(one: ServiceProcess) -> float:
    """Memory of the service's processes, what they share divided between them."""
    pids = [one.process.pid, *one.children()]
    text = [Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8") for pid in pids]
    lines = [line for rollup in text for line in rollup.splitlines() if line.startswith("Pss:")]
    return sum(int(line.split()[1]) for line in lines) / 1024


def write(folder: Path, rounds: int, rows: list[Any], pss: dict[str, float], *tables: Table) -> None:
    """Write workers.json, and workers.md for people."""
    command = " ".join(["python", "bench/workers.py", *sys.argv[1:]])
    cores = len(os.sched_getaffinity(0))
    report = {"command": command, "cores": cores, "rounds": rounds, "rows": rows, "pss_mib": pss}
    (folder / "workers.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    page = Console(width=110, file=StringIO())
    page.print(*tables)
    assert isinstance(page.file, StringIO)
    text = "\n".join(line.rstrip() for line in page.file.getvalue().splitlines())
    head = f"# Workers against threads\n\n`{command}`, {cores} cores shared with the callers, {rounds} rounds"
    (folder / "workers.md").write_text(f"{head}\n\n```\n{text}\n```\n", encoding="utf-8")


if __name__ == "__main__":
    main()
