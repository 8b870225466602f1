"""Runs in fixed sizes on a device: tensors at fixed addresses, each size captured once as a CUDA graph.

A captured graph is replayed with one launch. It reads and writes the addresses that it was captured with, so
each bucket has device memory of its own, which requests are copied into.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from rankd_contract.bundle import Bundle
from rankd_contract.signature import TensorSpec
from rankd_service.errors import BundleRefused
from rankd_service.inference.buckets import Bucketed
from rankd_service.inference.session import CUDA, GraphSession
from rankd_service.settings import InferenceSettings, ProviderChoice

__all__ = ["CAPTURE", "CapturedRuns", "open_session"]

# Attention by flash (1), memory-efficient (2) or plain products (16): cuDNN's (8) plans while it runs.
CAPTURE: Mapping[str, str] = {"enable_cuda_graph": "1", "sdpa_kernel": "19"}
"""What the CUDA provider is asked for; it refuses a graph that it would leave a node of to another one."""

_log = logging.getLogger(__name__)


def open_session(bundle: Bundle, settings: InferenceSettings) -> tuple[GraphSession | Bucketed, float]:
    """Load the graph of a bundle that is for here -> its session, and how far recorded scores may lie off.

    Raises BundleRefused.
    """
    threads, provider, cuda = settings.threads, settings.provider, bundle.manifest.cuda
    if provider is not ProviderChoice.CPU and cuda is not None:
        try:
            session = GraphSession(bundle.cuda_graph, threads, provider, CAPTURE)
            if session.provider == CUDA:
                return Bucketed(CapturedRuns(session, cuda.buckets, "cuda"), cuda), cuda.golden_tolerance
        except BundleRefused as refused:
            if provider is ProviderChoice.REQUIRE_CUDA:
                raise
            _log.warning("%s; the portable graph is run in its place", refused)
    return GraphSession(bundle.graph, threads, provider), bundle.manifest.golden_tolerance


@dataclass(frozen=True, slots=True)
class _Bound:
    """One bucket's memory on the device, and the options that name its capture."""

    binding: Any
    options: Any
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


class CapturedRuns:
    """A session's runs by bucket. Not safe for several threads at once: they would share inputs."""

    def __init__(self, session: GraphSession, buckets: Sequence[int], device: str) -> None:
        """Take memory on `device`, `cuda` or `cpu`, for inputs and outputs of every bucket."""
        self.provider, self.inputs, self.outputs = session.provider, session.inputs, session.outputs
        self._runtime: Any = session.runtime
        self._bound = {size: self._bind(size, k, device) for k, size in enumerate(buckets, start=1)}

    def run(
        self, bucket: int, outputs: Sequence[str], tensors: Mapping[str, NDArray[Any]]
    ) -> list[NDArray[np.float32]]:
        """Copy in, run or replay, copy out. The first run of a bucket captures it."""
        bound = self._bound[bucket]
        for name, value in bound.inputs.items():
            value.update_inplace(tensors[name])
        self._runtime.run_with_iobinding(bound.binding, bound.options)
        # On the host the array is the bound memory itself, which the next run writes.
        return [np.array(bound.outputs[name].numpy()) for name in outputs]

    def _bind(self, size: int, capture: int, device: str) -> _Bound:
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(capture))
        binding = self._runtime.io_binding()
        inputs = {s.name: _memory(s, size, device) for s in self.inputs}
        outputs = {s.name: _memory(s, size, device) for s in self.outputs}
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        return _Bound(binding, options, inputs, outputs)


def _memory(spec: TensorSpec, size: int, device: str) -> Any:
    dims = [size if isinstance(d, str) else d for d in spec.dims]
    return ort.OrtValue.ortvalue_from_numpy(np.zeros(dims, spec.dtype), device, 0)
