"""How much does a whole request cost beside the bare runtime? Both measured in turns, in one run.

    scripts/demo --once && python bench/serving.py

A request by ids (HTTP, JSON, feature rows from the store, scores, JSON) against `session.run` of the same
graph on the same inputs in this process, p50 over alternating rounds; the ratio is what counts, the
microseconds depend on the machine. Also prints where the time goes and the service's resident memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shlex
import socket
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from rich.console import Console
from rich.table import Table

from rankd.cli.process import free_port, serving
from rankd_contract.repository import open_current
from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import SCORES
from rankd_service.domain import Candidates, RankRequest, User
from rankd_service.features.assemble import Assembler
from rankd_service.features.embedded import EmbeddedStore
from rankd_service.features.redis_client import RedisClient
from rankd_service.features.redis_store import RedisStore

BARE = "bare session.run"

console = Console()


class Connection:
    """One kept-alive connection that sends the same request again and again, at next to no cost."""

    def __init__(self, port: int, path: str, body: bytes) -> None:
        """Connect and write the request down once."""
        self._port = port
        self._connect()
        lines = (
            f"POST {path} HTTP/1.1",
            "Host: x",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        head = "\r\n".join(lines) + "\r\n\r\n"
        self._request = head.encode() + body

    def call(self) -> bytes:
        """Send the request and return the answer's body; fails on anything but 200."""
        self._socket.sendall(self._request)
        data = self._receive()
        while (split := data.find(b"\r\n\r\n")) < 0:
            data += self._receive()
        head = data[:split].lower()
        assert b" 200 " in head[:15], data[:500]
        closes = b"connection: close" in head
        at = head.index(b"content-length:") + 15
        length = int(head[at : head.find(b"\r", at) if b"\r" in head[at:] else len(head)])
        while len(data) < split + 4 + length:
            data += self._receive()
        if closes:  # one of several workers had more than its share
            self._socket.close()
            self._connect()
        return data[split + 4 :]

    def _connect(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _receive(self) -> bytes:
        data = self._socket.recv(1 << 20)
        assert data, "the service closed the connection"
        return data


def main() -> None:
    """Measure, print, and write the figures where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, default=Path(".rankd/demo"))
    parser.add_argument("--model", default="mlcc")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=150, help="calls of each kind in a round")
    parser.add_argument("--out", type=Path, default=None, help="folder for serving.json and serving.md")
    options = parser.parse_args()

    asked = json.loads((options.home / "request.json").read_text(encoding="utf-8"))
    whole = {key: value for key, value in asked.items() if key not in {"top_k", "timing"}}
    requests = {f"best {asked['top_k']} answered": {**whole, "top_k": asked["top_k"]}, "all answered": whole}
    port = free_port()
    with serving(options.home, options.home / "bundles", port) as (process, _):
        path = f"/v1/rank/{options.model}"
        calls = {
            name: Connection(port, path, json.dumps(body).encode()).call for name, body in requests.items()
        }
        timed = Connection(port, path, json.dumps({**whole, "timing": True}).encode()).call
        feeds = asyncio.run(model_inputs(options.home, options.model, whole))
        bare = partial(bare_session(options.home, options.model).run, [SCORES], feeds)
        check_same_scores(json.loads(timed()), bare()[0], whole)
        for _ in range(300):
            bare()
            for call in calls.values():
                call()
        rounds = [
            {name: p50_us(call, options.calls) for name, call in {**calls, BARE: bare}.items()}
            for _ in range(options.rounds)
        ]
        stages = stage_p50([json.loads(timed())["timing"] for _ in range(options.calls)])
        resident = resident_mib(process.pid)

    report = {
        **made_by("serving.py"),
        "candidates": len(whole["item_ids"]),
        "rounds": options.rounds,
        "p50_us": {name: statistics.median(r[name] for r in rounds) for name in rounds[0]},
        "ratio": {name: spread([r[name] / r[BARE] for r in rounds]) for name in calls},
        "stages_p50_us": {stage: 1000 * ms for stage, ms in stages.items()},
        "resident_mib": resident,
    }
    console.print(table(report))
    if options.out:
        write(report, options.out)


def table(report: dict[str, Any]) -> Table:
    """Lay the report out for people."""
    grid = Table(
        "what", title=f"{report['candidates']} candidates by id, one process, one connection", box=None
    )
    grid.add_column("p50", justify="right")
    grid.add_column("to the bare run, median (min to max)", justify="right")
    for name, micros in report["p50_us"].items():
        ratio = report["ratio"].get(name)
        shown = f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})" if ratio else "1"
        grid.add_row(name, f"{micros:.0f} us", shown)
    for stage, micros in report["stages_p50_us"].items():
        grid.add_row(f"  stage {stage}", f"{micros:.0f} us", "")
    grid.add_row("resident memory", f"{report['resident_mib']:.0f} MiB", "")
    return grid


def write(report: dict[str, Any], folder: Path) -> None:
    """Write serving.json, and serving.md for people."""
    (folder / "serving.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    page = Console(file=StringIO(), width=100)
    page.print(table(report))
    assert isinstance(page.file, StringIO)
    text = "\n".join(line.rstrip() for line in page.file.getvalue().splitlines())
    made = f"`{report['command']}`, {report['date']}, {report['machine']}"
    head = f"# A whole request beside the bare runtime\n\n{made}"
    (folder / "serving.md").write_text(f"{head}\n\n```\n{text}\n```\n", encoding="utf-8")


def made_by(script: str) -> dict[str, str]:
    """Say which command measured, when, and on what."""
    return {
        "command": shlex.join(["python", f"bench/{script}", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
    }


def machine() -> str:
    """Say what it ran on."""
    cores = len(os.sched_getaffinity(0))
    versions = f"Python {platform.python_version()}, onnxruntime {ort.__version__}"
    return f"{cores} cores, {platform.machine()}, {versions}"


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def p50_us(call: Callable[[], object], times: int) -> float:
    """Median time of one call."""
    return statistics.median(elapsed_us(call) for _ in range(times))


def elapsed_us(call: Callable[[], object]) -> float:
    """Time one call."""
    started = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - started) / 1000


def stage_p50(timings: list[dict[str, float]]) -> dict[str, float]:
    """Median of each stage over many answers."""
    return {stage: statistics.median(t[stage] for t in timings) for stage in timings[0]}


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    (line,) = [entry for entry in status.splitlines() if entry.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


async def model_inputs(home: Path, model: str, request: dict[str, Any]) -> dict[str, Any]:
    """Read the same rows and put the same batch together as the service does."""
    schema = open_current(home / "bundles", model).schema
    with EmbeddedStore.attach_or_start(home / "store") as embedded:
        return await graph_inputs(schema, embedded.url, request)


async def graph_inputs(schema: FeatureSchema, url: str, request: dict[str, Any]) -> dict[str, Any]:
    """What the service makes of a request and of the rows in a store."""
    assembler, now_s = Assembler(schema, "rankd", clock_skew_s=300), time.time()
    ranked = RankRequest("bench", User(request["user"]), Candidates(request["item_ids"]))
    patience = {"connect_timeout_s": 1.0, "read_timeout_s": 5.0}
    store = RedisStore(RedisClient(url, connections=1, max_outstanding=1, **patience))
    drafts = assembler.draft(ranked.user, ranked.candidates, now_s)
    rows = await store.read(drafts.keys, budget_s=5.0)
    await store.close()
    context, overrides = assembler.context(request.get("context", {}), now_s), assembler.overrides(ranked)
    return dict(assembler.assemble(drafts, context, overrides, rows, now_s).batch.tensors)


def bare_session(home: Path, model: str) -> ort.InferenceSession:
    """Open the graph as the service does: one thread, no spinning."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    graph = open_current(home / "bundles", model).graph
    return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def check_same_scores(answer: dict[str, Any], scores: np.ndarray[Any, Any], request: dict[str, Any]) -> None:
    """End the benchmark where the two sides did not score the same inputs."""
    by_id = dict(zip(request["item_ids"], scores[:, 0].tolist(), strict=True))
    task = next(iter(answer["items"][0]["scores"]))
    worst = max(abs(item["scores"][task] - by_id[item["id"]]) for item in answer["items"])
    assert worst < 1e-5, f"the service and the bare session differ by {worst}"
    assert not answer["degraded"], answer["degraded"]


if __name__ == "__main__":
    main()
