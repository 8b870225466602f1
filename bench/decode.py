"""Times the decoding of packed feature rows: 1,000 entities of 30 ids and 10 numbers, on one core.

Prints median and p99 against the target of 1 ms, and the floor (joining the replies and viewing them as
numbers, with no check at all) measured in turn with it, so that their ratio holds on a busy machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console

from rankd_contract.encoding import Block
from rankd_contract.packing import FeatureStatus, RowFormat
from rankd_contract.schema import Entity
from rankd_contract.schema_file import parse_schema

NUM_ROWS, NUM_IDS, NUM_VALUES = 1_000, 30, 10
TARGET_US = 1_000.0
ROUNDS, WARM_UP = 3_000, 300


def schema_text() -> str:
    """Return a schema whose item view has the benchmark's fields."""
    fields = [f"{{name: i{i}, kind: categorical, dtype: int64, hash: 100000}}" for i in range(NUM_IDS)]
    fields += [f"{{name: v{i}, kind: numeric, dtype: float32, default: 0}}" for i in range(NUM_VALUES)]
    user = (
        "{name: user, entity: user, key: id, fields: [{name: u, kind: categorical, dtype: int64, hash: 9}]}"
    )
    item = f"{{name: item, entity: item, key: id, fields: [{', '.join(fields)}]}}"
    return f"{{rankd_schema: 1, name: bench, views: [{user}, {item}], tasks: [{{name: click}}]}}"


def microseconds(call: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1_000


def main() -> None:
    """Run the benchmark and print its table."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rng = np.random.default_rng(0)
    schema = parse_schema(schema_text())
    row = RowFormat(schema, schema.view("item"))
    layout = schema.layout(Entity.ITEM)
    block = Block(
        rng.integers(0, 100_002, (NUM_ROWS, NUM_IDS), np.int32),
        rng.standard_normal((NUM_ROWS, NUM_VALUES), np.float32),
    )
    hashes = rng.integers(0, 2**64, NUM_ROWS, np.uint64)
    packed = row.pack(block, hashes, np.zeros(NUM_ROWS, np.int64))
    mixed: list[bytes | None] = [None if i % 10 == 0 else p for i, p in enumerate(packed)]
    out, times = Block.empty(NUM_ROWS, layout), np.zeros(NUM_ROWS, np.int64)

    def decode() -> object:
        return row.unpack(packed, hashes, out, times)

    def decode_with_gaps() -> object:
        return row.unpack(mixed, hashes, out, times)

    def floor() -> object:
        words = np.frombuffer(b"".join(packed), np.uint32).reshape(NUM_ROWS, -1)
        return words[:, 8 : 8 + NUM_IDS].view(np.int32), words[:, 8 + NUM_IDS : -2].view(np.float32)

    assert (row.unpack(packed, hashes, out, times) == FeatureStatus.PRESENT).all()
    assert (out.ids == block.ids).all()
    calls = {"decode": decode, "decode, one row in ten missing": decode_with_gaps, "floor": floor}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(WARM_UP + ROUNDS):
        for name, call in calls.items():
            taken = microseconds(call)
            if i >= WARM_UP:
                samples[name].append(taken)

    console = Console(highlight=False, soft_wrap=True)
    size = f"{NUM_ROWS} rows of {row.row_bytes} bytes, {NUM_IDS} ids and {NUM_VALUES} numbers each"
    console.print(f"{size}; {ROUNDS} rounds, one core")
    floor_us = float(np.median(samples["floor"]))
    for name, taken_us in samples.items():
        median, p99 = np.percentile(taken_us, [50, 99])
        verdict = (
            ""
            if name == "floor"
            else f"  {median / floor_us:4.1f}x floor, {median / TARGET_US:.2f} of target"
        )
        console.print(f"{name:32} median {median:7.1f} us  p99 {p99:7.1f} us{verdict}")


if __name__ == "__main__":
    main()
