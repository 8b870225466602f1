"""Ways to score one request on a device, each from numbers on the host to scores on the host.

What is not there, such as a build of onnxruntime with CUDA, is said in words and left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from bench.models import Request, request_of, tensors
from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import SCORES, TensorSpec
from rankd_export.cuda.graph import to_cuda
from rankd_export.cuda.narrow import Narrow, narrowed
from rankd_export.fold import serving_form
from rankd_export.graph import to_onnx

__all__ = ["Run", "Ways", "ways"]

Run = Callable[[], NDArray[np.float32]]
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class Ways:
    """What can be run here, and why the rest cannot."""

    runs: Mapping[str, Run]
    absent: Mapping[str, str]
    about: Mapping[str, Any]


def ways(model: nn.Module, schema: FeatureSchema, request: Request, device: str) -> Ways:
    """Every way to score a request; `device` is `cuda`, or `cpu` for a test of this file."""
    runs: dict[str, Run] = {}
    absent: dict[str, str] = {}
    graph = to_onnx(model, schema, tensors(request_of(schema, 6, 3, seed=1)))
    made = to_cuda(graph)
    graphs = {
        "onnxruntime, portable graph": graph,
        "onnxruntime, CUDA graph": made,
        **{f"onnxruntime, CUDA graph, {kind.value}": narrowed(made, kind) for kind in Narrow},
    }
    of_torch = {
        "torch, eager": lambda: model,
        "torch, compiled": lambda: _compiled(model, device),
        "torch, serving form compiled": lambda: _compiled(serving_form(model), device),
    }
    for name, made_of in of_torch.items():
        _try(
            name,
            lambda made_of=made_of: _of_torch(made_of().to(device).eval(), request, device),
            runs,
            absent,
        )
    for name, chosen in graphs.items():
        _try(name, lambda chosen=chosen: _of_runtime(chosen, request, device), runs, absent)
    nodes = {name: len(chosen.graph.node) for name, chosen in graphs.items()}
    return Ways(runs, absent, {"nodes": nodes})


def _try(name: str, make: Callable[[], Run], runs: dict[str, Run], absent: dict[str, str]) -> None:
    """Make it and run it, so that what is compiled or captured is so afterwards."""
    try:
        run = make()
        for _ in range(3):
            run()
        runs[name] = run
    except Exception as error:  # whatever is missing on a host that nobody has seen yet
        absent[name] = " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _compiled(model: nn.Module, device: str) -> Any:
    if device == "cpu":  # compiling is not what is tested there
        return torch.compile(model, backend="eager", dynamic=False)
    return torch.compile(model, mode="reduce-overhead", dynamic=False)


def _of_torch(model: Any, request: Request, device: str) -> Run:
    given = tensors(request)
    if device == "cuda":
        given = {name: tensor.pin_memory() for name, tensor in given.items()}
    there = {name: tensor.to(device) for name, tensor in given.items()}

    def run() -> NDArray[np.float32]:
        with torch.inference_mode():
            for name, tensor in given.items():
                there[name].copy_(tensor, non_blocking=True)
            scores: NDArray[np.float32] = torch.sigmoid(model(there)).cpu().numpy()
            return scores

    return run


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What the service's runs ask of a session."""

    runtime: Any
    provider: str
    nodes: Mapping[str, int]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def _of_runtime(graph: onnx.ModelProto, request: Request, device: str) -> Run:
    import onnxruntime as ort  # noqa: PLC0415  # torch's CUDA libraries have to be loaded before it looks for its own

    from rankd_service.inference.captured import CAPTURE, CapturedRuns  # noqa: PLC0415  # imports it too

    if device == "cuda" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # cuDNN's, which torch loads only when it first needs it
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    providers: list[Any] = [_CPU]
    if device == "cuda":
        if _CUDA not in ort.get_available_providers():
            raise RuntimeError(
                f"onnxruntime {ort.__version__} is a build without CUDA; install onnxruntime-gpu"
            )
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        providers = [(_CUDA, {"use_tf32": "0", **CAPTURE})]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        onnx.save(graph, path)
        session = ort.InferenceSession(path, options, providers=providers)
    provider = session.get_providers()[0]
    if device == "cuda" and provider != _CUDA:
        raise RuntimeError(f"the session runs on {provider}")
    inputs, outputs = (
        tuple(TensorSpec(v.name, _dtype(v.type), tuple(request_shape(v, request))) for v in values)
        for values in (session.get_inputs(), session.get_outputs())
    )
    runs = CapturedRuns(_Loaded(session, provider, {}, inputs, outputs), [_candidates(request)], device)
    return lambda: runs.run(_candidates(request), (SCORES,), request)[0]


def request_shape(value: Any, request: Request) -> tuple[str | int, ...]:
    """Return a value's sizes; those of users, which the portable graph leaves open, are the request's."""
    if value.name in request:
        return ("N" if value.shape[0] == "N" else len(request[value.name]), *value.shape[1:])
    return tuple(value.shape)


def _candidates(request: Request) -> int:
    return max(map(len, request.values()))


def _dtype(name: str) -> str:
    kind = name.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(kind, kind)
