"""The fused kernels beside their plain twins on a device, and beside what its memory can do.

The embedding stage is measured at a request's size, where its rows stay in the cache, and at one where memory
is the bound; what it moves is counted from its tensors, each read or written once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from bench.kernels import twins

__all__ = ["copy_bandwidth", "kernels"]

_ROUNDS, _RUNS = 7, 20
# Sizes of the models that are timed: MLCC's 12 item slots, ARM-Net's neurons, INFNet's histories.
_SLOTS, _WIDTH, _OUTS, _ROWS = 12, 16, 272, 120_000
_NEURONS, _ALL_SLOTS, _TOKENS = 64, 20, 100

Call = Callable[[], object]


def copy_bandwidth(device: str, num_bytes: int) -> float:
    """Return bytes a second, read and written, of copying within memory."""
    source = torch.empty(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / _seconds(lambda: target.copy_(source), device)


def kernels(device: str, candidates: int, many: int, bandwidth: float) -> dict[str, Any]:
    """Seconds of every kernel and its twin, and what share of the bandwidth the embedding stage reaches."""
    found: dict[str, Any] = {}
    for name, given in _cases(device, candidates, many).items():
        kernel = name.split(",", maxsplit=1)[0]
        calls: dict[str, Call] = {"twin": lambda k=kernel, g=given: getattr(twins, k)(*g)}
        row: dict[str, Any] = {}
        try:
            calls["fused"] = _fused(kernel, given)
        except Exception as error:  # no Triton, or no kernel of it for this device
            row["absent"] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        if device == "cuda":
            compiled = torch.compile(getattr(twins, kernel), dynamic=False)
            try:
                compiled(*given)
                calls["twin, compiled"] = lambda c=compiled, g=given: c(*g)
            except Exception as error:  # no compiler on the host
                row["not compiled"] = " ".join(str(error).split())[:300]
        if "fused" in calls:
            row["difference"] = _difference(calls["fused"](), calls["twin"]())
        row["us"] = {way: 1e6 * _seconds(call, device) for way, call in calls.items()}
        if kernel == "embedding_stage":
            moved = _moved(given, candidates if name == kernel else many)
            row["bytes"] = moved
            row["share"] = {way: moved / (us * 1e-6) / bandwidth for way, us in row["us"].items()}
        found[name] = row
    return found


def _cases(device: str, candidates: int, many: int) -> Mapping[str, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    sizes = torch.full((_SLOTS,), _ROWS // _SLOTS, dtype=torch.int32)
    table = torch.randn(_ROWS, _WIDTH)
    weight, user = torch.randn(_SLOTS, _WIDTH, _OUTS), torch.randn(_OUTS)

    def embedding(n: int) -> tuple[Tensor, ...]:
        ids = torch.randint(0, _ROWS // _SLOTS, (n, _SLOTS), dtype=torch.int32)
        return ids, sizes, (sizes.cumsum(0) - sizes).int(), table, weight, user

    cases = {
        "embedding_stage": embedding(candidates),
        f"embedding_stage, {many:,} candidates": embedding(many),
        "entmax_15": (torch.randn(_ALL_SLOTS, candidates, _NEURONS),),
        "gated_unit": (
            torch.randn(1, _TOKENS, _WIDTH),
            torch.ones(1, _TOKENS),
            torch.zeros(candidates, dtype=torch.int64),
            torch.randn(candidates, 2 * _WIDTH),
            torch.randn(_WIDTH),
            torch.randn(_WIDTH),
        ),
    }
    return {name: tuple(t.to(device).contiguous() for t in given) for name, given in cases.items()}


def _fused(kernel: str, given: tuple[Tensor, ...]) -> Call:
    from bench.kernels import fused  # noqa: PLC0415  # needs Triton

    call = getattr(fused, kernel)
    call(*given)
    return lambda: call(*given)


def _moved(given: tuple[Tensor, ...], candidates: int) -> int:
    ids, _, _, _, weight, user = given
    rows = candidates * _SLOTS * _WIDTH * 4  # read from the table, written as slots
    return ids.numel() * 4 + 2 * rows + weight.numel() * 4 + user.numel() * 4 + candidates * _OUTS * 4


def _difference(found: Any, expected: Any) -> float:
    pairs = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
    return max(float((a - b).abs().max()) for a, b in pairs)


def _captured(call: Call) -> Call:
    """Replay it as a CUDA graph, so that what is timed is the device and not the launches."""
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def _seconds(call: Call, device: str) -> float:
    """Return the median of some rounds of runs one after the other, as the device sees them."""
    if device == "cuda":
        call = _captured(call)
    call()
    taken = []
    for _ in range(_ROUNDS):
        if device == "cuda":
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(_RUNS):
                call()
            stop.record()
            torch.cuda.synchronize()
            taken.append(start.elapsed_time(stop) / 1e3 / _RUNS)
        else:
            began = time.perf_counter()
            call()
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)
