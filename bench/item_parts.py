"""What does it save to compute an item's part of a score once? The graphs alone, then under traffic.

    python bench/item_parts.py --out docs/results           # six minutes on two cores
    python bench/item_parts.py --only graphs --models dnn

First every model's graph whole, against its rest with the items' parts taken from a table, for one user and
500 candidates, in turns on one thread. Then whole requests of an MLCC behind the real near cache and a real
store: a million items asked for by Zipf's law with exponent 1.1, the 1 % of rows that a catalogue rewrites in
a minute, rows that run out, and nothing near at hand at the start. Ratios count; microseconds depend on the
machine. Writes item-parts.json and .md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from rich.console import Console

from bench.export import microseconds, session
from bench.models import build, request_of, schema_of, tensors
from bench.serving import made_by
from bench.untrained import USERS, fill, packed, published
from rankd.load.bodies import zipf_shares
from rankd_contract.schema import Entity, FeatureSchema
from rankd_contract.signature import SCORES
from rankd_export.graph import to_onnx
from rankd_export.item_part import split
from rankd_service.app import near_caches, open_feed, open_store
from rankd_service.deadline import Deadline, SystemClock
from rankd_service.domain import Candidates, RankRequest, User
from rankd_service.features.embedded import EmbeddedStore
from rankd_service.features.redis_bulk import open_bulk
from rankd_service.inference.loader import load_current
from rankd_service.inference.registry import ModelRegistry
from rankd_service.pipeline import RankPipeline
from rankd_service.settings_sources import load_settings
from rankd_service.stage_times import StageTimes
from rankd_service.telemetry import Telemetry
from rankd_training.models import registry

CANDIDATES, ROUNDS, PLACES = 500, 7, 100_000
EXPONENT, REWRITTEN_A_MINUTE = 1.1, 0.01
WINDOW_S = 10.0
NEAR_MB = 256
# What each way keeps: rows near at hand, MiB, and items' parts, MiB.
WAYS = {"nothing kept": (0, 0), "rows kept": (NEAR_MB, 0), "rows and parts kept": (NEAR_MB, 512)}

console = Console(width=160)


def main() -> None:
    """Measure, print, and write the figures where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["graphs", "traffic"], default=None)
    parser.add_argument("--models", default=",".join(registry.names()), help="with commas")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=180.0, help="of traffic")
    parser.add_argument("--out", type=Path, default=None, help="folder for item-parts.json and .md")
    options = parser.parse_args()
    report: dict[str, Any] = {
        **made_by("item_parts.py"),
        "candidates": CANDIDATES,
    }
    if options.only != "traffic":
        report["graphs"] = [row for name in options.models.split(",") for row in of_graph(name)]
    if options.only != "graphs":
        report["traffic"] = asyncio.run(under_traffic(options.items, options.seconds))
    if options.out:
        (options.out / "item-parts.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        (options.out / "item-parts.md").write_text(page(report), encoding="utf-8")


def exported(name: str) -> tuple[FeatureSchema, onnx.ModelProto]:
    """Export a model with random weights, as it is served."""
    schema = schema_of(name)
    graph = to_onnx(build(name, schema), schema, tensors(request_of(schema, 6, 3, seed=1)))
    return schema, graph


def of_graph(name: str) -> Iterator[dict[str, Any]]:
    """Time one model's graph whole and as the rest of it, parts taken from a table by Zipf's law."""
    schema, graph = exported(name)
    made = split(graph)
    if made is None:
        return
    request = request_of(schema, CANDIDATES, 1, seed=3)
    whole, item, rest = session(graph), session(made.item), session(made.rest)
    parts = [value.name for value in made.item.graph.output]
    needed = {value.name for value in made.rest.graph.input}
    computed = item.run(parts, {v.name: request[v.name] for v in made.item.graph.input})
    tables = [np.repeat(part[:1], PLACES, axis=0) for part in computed]
    asked = np.random.default_rng(1).choice(PLACES, (64, CANDIDATES), p=zipf_shares(PLACES, EXPONENT))
    for table, part in zip(tables, computed, strict=True):
        table[asked[0]] = part
    turn = 0

    def as_one() -> NDArray[np.float32]:
        scores: NDArray[np.float32] = whole.run([SCORES], request)[0]
        return scores

    def with_parts(taken: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        given = {**request, **dict(zip(parts, taken, strict=True))}
        scores: NDArray[np.float32] = rest.run([SCORES], {n: v for n, v in given.items() if n in needed})[0]
        return scores

    def from_table() -> NDArray[np.float32]:
        nonlocal turn
        turn += 1
        return with_parts([np.take(table, asked[turn % len(asked)], axis=0) for table in tables])

    def computed_now() -> NDArray[np.float32]:
        return with_parts(item.run(parts, {v.name: request[v.name] for v in made.item.graph.input}))

    difference = float(np.abs(computed_now() - as_one()).max())
    rounds = [[microseconds(run) for run in (as_one, from_table, computed_now)] for _ in range(ROUNDS)]
    ratios = sorted(kept / one for one, kept, _ in rounds)
    again = statistics.median(now / one for one, _, now in rounds)
    row = {
        "model": name,
        "whole_us": round(statistics.median(one for one, _, _ in rounds)),
        "kept_us": round(statistics.median(kept for _, kept, _ in rounds)),
        "faster": round(1 / statistics.median(ratios), 2),
        "range": [round(1 / ratios[-1], 2), round(1 / ratios[0], 2)],
        "none_kept": round(again, 2),
        "bytes_an_item": 4 * made.numbers,
        "difference": difference,
    }
    console.print(row)
    yield row


@dataclass(slots=True)
class Way:
    """A pipeline, what it keeps, and what its requests took: seconds of processor and of the clock."""

    pipeline: RankPipeline
    near: Any
    feed: Any
    store: Any
    took: list[tuple[float, float, float]]

    async def close(self) -> None:
        """Leave the store."""
        await self.feed.stop()
        await self.store.close()


async def under_traffic(items: int, seconds: float) -> dict[str, Any]:
    """Rank for all ways in turns, from cold, over one store that somebody rewrites."""
    schema, graph = exported("mlcc")
    with (
        tempfile.TemporaryDirectory(prefix="rankd-") as folder,
        EmbeddedStore(Path(folder) / "store") as store,
    ):
        repository = Path(folder) / "bundles"
        published(repository, "mlcc", schema, graph)
        fill(store.url, schema, items)
        ways = {name: open_way(repository, store.url, *kept) for name, kept in WAYS.items()}
        stop = threading.Event()
        rewriter = threading.Thread(target=rewrite, args=(store.url, schema, items, stop))
        rewriter.start()
        try:
            for way in ways.values():
                way.feed.start()
            await asyncio.sleep(1.0)  # until the server tells of changes
            await rank_in_turns(ways, items, seconds)
        finally:
            stop.set()
            rewriter.join()
            for way in ways.values():
                await way.close()
    return {"items": items, "seconds": seconds, "ways": {name: told(way) for name, way in ways.items()}}


async def rank_in_turns(ways: Mapping[str, Way], items: int, seconds: float) -> None:
    """Each request goes to every way; which is first changes from one to the next."""
    rng = np.random.default_rng(5)
    edges = np.cumsum(zipf_shares(items, EXPONENT))
    clock, began_s = SystemClock(), time.monotonic()
    order = list(ways.values())
    while (at_s := time.monotonic() - began_s) < seconds:
        drawn = np.searchsorted(edges, rng.random(4 * CANDIDATES))
        _, first = np.unique(drawn, return_index=True)
        ids = [f"i{n}" for n in drawn[np.sort(first)[:CANDIDATES]].tolist()]
        request = RankRequest("bench", User(f"u{rng.integers(USERS)}"), Candidates(ids), top_k=10)
        order.append(order.pop(0))
        for way in order:
            model = way.pipeline.find("mlcc", None)
            deadline = Deadline(clock, clock.monotonic_s() + 5.0)
            wall, spent = time.perf_counter(), time.thread_time()
            slate = await way.pipeline.rank(model, request, deadline, StageTimes(clock))
            way.took.append((at_s, time.thread_time() - spent, time.perf_counter() - wall))
            assert not any(d.reason.value == "store_down" for d in slate.degraded), slate.degraded


def told(way: Way) -> dict[str, Any]:
    """What a way's requests took, by windows of time, and how much was found near at hand."""
    times = np.array(way.took)
    windows = [times[(times[:, 0] // WINDOW_S) == k, 1:] for k in range(int(times[-1, 0] // WINDOW_S) + 1)]
    near = way.near
    return {
        "requests": len(times),
        "cpu_us": [round(1e6 * float(np.median(w[:, 0]))) for w in windows if len(w)],
        "wall_us": [round(1e6 * float(np.median(w[:, 1]))) for w in windows if len(w)],
        "rows_found": round(near.hits / max(1, near.hits + near.misses), 4),
        "parts_found": round(near.parts.kept / max(1, near.parts.kept + near.parts.computed), 4),
    }


def open_way(repository: Path, url: str, near_mb: float, parts_mb: float) -> Way:
    """Wire a pipeline as the service does."""
    settings = load_settings(
        models={"repository": repository},
        features={"near_cache_mb": near_mb, "fetch_cap_ms": 1000},
        inference={"item_parts_mb": parts_mb},
    )
    clock, telemetry = SystemClock(), Telemetry(CollectorRegistry())
    near, store = near_caches(settings.features, clock), open_store(url, settings.redis, telemetry)
    models = ModelRegistry()
    model = load_current(repository, "mlcc", settings, near)
    telemetry.serve(model.card, model.assembler.views)
    models.publish([model])
    pipeline = RankPipeline(models, store, telemetry, settings, clock)
    return Way(pipeline, near, open_feed(url, store, near, settings.redis, clock), store, [])


def rewrite(url: str, schema: FeatureSchema, items: int, stop: threading.Event) -> None:
    """Write 1 % of the rows anew in a minute, whichever, a few ten times a second."""
    store, rng = open_bulk(url, 30.0), np.random.default_rng(9)
    at_once = max(1, round(items * REWRITTEN_A_MINUTE / 600))
    while not stop.wait(0.1):
        store.send(
            *packed(
                schema, Entity.ITEM, rng.integers(0, items, at_once).tolist(), int(rng.integers(1 << 30))
            ),
            None,
        )
        store.drain()
    store.close()


def page(report: Mapping[str, Any]) -> str:
    """Write the report for people."""
    lines = [
        "# An item's part of a score, computed once\n",
        f"`{report['command']}`, {report['date']}, {report['machine']}. {report['candidates']} candidates, "
        "one thread.",
    ]
    if "graphs" in report:
        lines += [
            "\nThe graph whole, against the rest of it with the items' parts taken from a table of 100,000 "
            'by Zipf\'s law: processor time of the runtime and of taking the parts. "None kept" is both '
            "graphs' time as a share of the whole one's: what a request of new items pays for the cut.\n",
            "| model | whole, us | parts kept, us | faster | range | none kept | bytes an item | apart |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        lines += [
            f"| {g['model']} | {g['whole_us']} | {g['kept_us']} | **{g['faster']}** | {g['range'][0]} to "
            f"{g['range'][1]} | {g['none_kept']} | {g['bytes_an_item']} | {g['difference']:.0e} |"
            for g in report["graphs"]
        ]
    if "traffic" in report:
        lines += ["", *of_traffic(report["traffic"])]
    return "\n".join(lines) + "\n"


def of_traffic(traffic: Mapping[str, Any]) -> list[str]:
    """Whole requests, for people."""
    ways = traffic["ways"]
    steady = {name: statistics.median(way["cpu_us"][len(way["cpu_us"]) // 2 :]) for name, way in ways.items()}
    base = steady["nothing kept"]
    return [
        f"Whole requests (features from the store, MLCC, the ten best) over {traffic['items']:,} items by "
        f"Zipf's law with exponent {EXPONENT}, 1 % of the rows rewritten a minute, rows fresh for 60 s, from "
        f"cold, {traffic['seconds']:.0f} s, the three ways in turns. Processor time of the service's thread: "
        f"medians of {WINDOW_S:.0f} s windows; steady is the second half.\n",
        "| kept | first window, us | steady, us | to nothing kept | rows found | parts found |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {way['cpu_us'][0]} | {steady[name]:.0f} | {steady[name] / base:.2f} | "
            f"{way['rows_found']:.1%} | {way['parts_found']:.1%} |"
            for name, way in ways.items()
        ),
    ]


if __name__ == "__main__":
    main()
