"""Times several ways to read the same keys, in turns of chance, so that noise meets all of them alike."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import numpy as np

__all__ = ["Read", "timed"]

Read = Callable[[list[str]], Awaitable[object]]


async def timed(
    ways: Mapping[str, Read],
    sizes: Sequence[int],
    key: Callable[[int], str],
    *,
    num_rows: int,
    rounds: int,
    warm_up: int,
) -> dict[str, dict[int, list[float]]]:
    """Read keys drawn from `num_rows` rows -> microseconds by way and number of keys; warm-up left out."""
    rng = np.random.default_rng(0)
    found: dict[str, dict[int, list[float]]] = {name: {n: [] for n in sizes} for name in ways}
    for i in range(warm_up + rounds):
        for n in sizes:
            for name in rng.permutation(list(ways)).tolist():
                keys = [key(number) for number in rng.integers(0, num_rows, n).tolist()]
                start = time.perf_counter_ns()
                await ways[name](keys)
                if i >= warm_up:
                    found[name][n].append((time.perf_counter_ns() - start) / 1000)
    return found
