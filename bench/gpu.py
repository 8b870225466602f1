"""Inference on a GPU: p50 and p99 of every way to run a model, and the share reached of its memory's speed.

    python bench/gpu.py               # on a host with a CUDA device; minutes
    python bench/gpu.py --self-test   # anywhere: the same path on the CPU, small, writes nothing that counts

2,048 candidates of one user for MLCC, INFNet and ARM-Net, all ways in turns within one run, each from numbers
in the host's memory to scores in the host's memory. TF32 is off for all. Weights are random. Then the fused
kernels (`bench/kernels`) beside their twins. Writes docs/results/gpu.json and .md.

The host needs torch with CUDA, onnx, onnxscript, PyYAML; onnxruntime-gpu and Triton are left out where they
are not there, and the page says so.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
import time
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
# A GPU host is often one where nothing of ours is installed.
sys.path[:0] = [str(REPOSITORY / part) for part in ("", "contract", "training", "export", "service")]

from bench.gpu_kernels import copy_bandwidth, kernels  # noqa: E402  # found by the lines above
from bench.gpu_page import page  # noqa: E402
from bench.gpu_ways import Run, ways  # noqa: E402
from bench.models import build, request_of, schema_of  # noqa: E402

MODELS = ("mlcc", "infnet", "armnet")
# Milliseconds that the p99 of an H200 with CUDA graphs has to stay within.
TARGETS = {"mlcc": 1.0, "infnet": 2.0, "armnet": 2.0}
CANDIDATES, MANY = 2048, 1 << 18
ROUNDS, RUNS = 20, 100
COPIED = 1 << 30
TOLERANCE = 1e-5


def measured(name: str, device: str, candidates: int, rounds: int, runs: int) -> dict[str, Any]:
    """One model: percentiles of every way, and how far its scores lie from torch's on the CPU."""
    schema = schema_of(name)
    model, request = build(name, schema), request_of(schema, candidates, 1, seed=3)
    with torch.no_grad():
        given = {key: torch.from_numpy(array) for key, array in request.items()}
        truth = torch.sigmoid(model(given)).numpy()
    found = ways(model, schema, request, device)
    differences = {way: float(np.abs(run() - truth).max()) for way, run in found.runs.items()}
    taken = _in_turns(found.runs, rounds, runs)
    rows = {
        way: {
            "p50_ms": float(np.percentile(ms, 50)),
            "p99_ms": float(np.percentile(ms, 99)),
            "runs": len(ms),
            "difference": differences[way],
        }
        for way, ms in taken.items()
    }
    for way, row in rows.items():
        print(f"{name:8s} {way:36s} p50 {row['p50_ms']:8.3f} ms  p99 {row['p99_ms']:8.3f} ms", flush=True)  # noqa: T201  # a progress line; rich may not be there
    for way, why in found.absent.items():
        print(f"{name:8s} {way:36s} not available: {why}", flush=True)  # noqa: T201  # likewise
    return {"ways": rows, "absent": dict(found.absent), "target_ms": TARGETS[name], **found.about}


def _in_turns(runs: Mapping[str, Run], rounds: int, times: int) -> dict[str, list[float]]:
    """Milliseconds of each run, after a round that does not count."""
    taken: dict[str, list[float]] = {way: [] for way in runs}
    for k in range(rounds + 1):
        for way, run in runs.items():
            for _ in range(times):
                began = time.perf_counter()
                run()
                if k:
                    taken[way].append(1e3 * (time.perf_counter() - began))
    return taken


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--self-test", action="store_true", help="run the whole path on the CPU, small")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=MODELS)
    parser.add_argument("--out", type=Path, help="default: docs/results/gpu.json; with --self-test nothing")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    device = "cpu" if options.self_test else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device here; --self-test runs the same path on the CPU")
    if device == "cuda":
        torch.cuda.init()  # its libraries are onnxruntime's too
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(1)
    small = options.self_test
    candidates, many = (33, 257) if small else (CANDIDATES, MANY)
    bandwidth = copy_bandwidth(device, 1 << 20 if small else COPIED)
    found: dict[str, Any] = {
        "at": datetime.now(UTC).date().isoformat(),
        "self_test": small,
        "device": platform.machine() if small else torch.cuda.get_device_name(),
        "candidates": candidates,
        "tolerance": TOLERANCE,
        "versions": {
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            **{name: _version(name) for name in ("onnxruntime-gpu", "onnxruntime", "triton")},
        },
        "copy_bytes_per_s": bandwidth,
        "models": {
            name: measured(name, device, candidates, *((2, 3) if small else (ROUNDS, RUNS)))
            for name in options.models
        },
        "kernels": kernels(device, candidates, many, bandwidth),
    }
    out = options.out or (None if small else REPOSITORY / "docs" / "results" / "gpu.json")
    if out is not None:
        out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        out.with_suffix(".md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
