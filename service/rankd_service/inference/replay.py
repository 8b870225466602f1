"""A bundle's recorded requests: read, scored again here, and compared with the scores that were recorded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankd_contract.schema import FeatureSchema
from rankd_contract.score_tolerance import worst_excess
from rankd_contract.signature import ROW, SCORES, inputs
from rankd_service.errors import BundleRefused
from rankd_service.inference.batch import Batch
from rankd_service.inference.golden import GoldenError, read_golden
from rankd_service.inference.registry import Scorer

__all__ = ["Requests", "recorded", "replay", "timed"]

_LOOSEST_TOLERANCE = 1e-2
_TIMED_RUNS = 3

Requests = Mapping[str, dict[str, NDArray[np.generic]]]


def recorded(at: str, path: Path) -> Requests:
    """Read the requests. Raises BundleRefused where there are none."""
    try:
        requests = read_golden(path)
    except GoldenError as error:
        raise BundleRefused(f"{at}: {path.name} {error}") from error
    if not requests:
        raise BundleRefused(f"{at}: {path.name} holds no request, so nothing proves the scores; export again")
    return requests


def replay(at: str, scorer: Scorer, schema: FeatureSchema, tolerance: float, requests: Requests) -> None:
    """Score the requests again. Raises BundleRefused where a score is further off than `tolerance` allows."""
    if not 0 <= tolerance <= _LOOSEST_TOLERANCE:
        raise BundleRefused(
            f"{at}: golden_tolerance is {tolerance}, expected 0 to {_LOOSEST_TOLERANCE}: more proves nothing"
        )
    names = [s.name for s in inputs(schema)]
    for k, arrays in requests.items():
        absent = sorted({*names, SCORES} - arrays.keys())
        if absent:
            raise BundleRefused(f"{at}: golden request {k} lacks {', '.join(absent)}; export again")
        # onnxruntime divides by the number of rows and dies, the process with it, where there is none.
        if not all(np.size(arrays[name]) for name in names):
            raise BundleRefused(f"{at}: golden request {k} holds an empty input; export again")
        expected = arrays[SCORES].astype(np.float64)
        try:
            found = scorer.score(_batch({n: arrays[n] for n in names}))
        except Exception as error:  # onnxruntime's own errors share no other base
            raise BundleRefused(f"{at}: golden request {k} cannot be run: {error}") from error
        if found.shape != expected.shape:
            raise BundleRefused(
                f"{at}: golden request {k}: scores are {found.shape}, recorded were {expected.shape}"
            )
        difference, bound = worst_excess(found, expected, tolerance)
        if not difference <= bound:  # so that NaN is refused too
            raise BundleRefused(
                f"{at}: golden request {k}: scores differ from the recorded ones by {difference:.3g}, "
                f"allowed is {bound:.3g}; this runtime computes the graph differently, export for it"
            )


def timed(scorer: Scorer, requests: Requests) -> Iterator[tuple[int, float]]:
    """Run the recorded requests again, now that everything is warm -> candidates and seconds of each."""
    for arrays in requests.values():
        batch = _batch(arrays)
        spent_s = []
        for _ in range(_TIMED_RUNS):
            began_s = time.perf_counter()
            scorer.score(batch)
            spent_s.append(time.perf_counter() - began_s)
        yield len(arrays[SCORES]), min(spent_s)


def _batch(arrays: Mapping[str, NDArray[np.generic]]) -> Batch:
    return Batch({n: a for n, a in arrays.items() if n != SCORES}, np.zeros(len(arrays[ROW]), np.int64))
