"""Runs in fixed sizes on a device: tensors at fixed addresses, each size captured once as a CUDA graph.

A captured graph is replayed with one launch. It reads and writes the addresses that it was captured with, so
each bucket has device memory of its own, which requests are copied into.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rankd_contract.signature import TensorSpec
from rankd_service.inference.runtime import runtime

__all__ = ["CAPTURE", "CapturedRuns", "Loaded"]

# Attention by flash (1), memory-efficient (2) or plain products (16): cuDNN's (8) plans while it runs.
CAPTURE: Mapping[str, str] = {"enable_cuda_graph": "1", "sdpa_kernel": "19"}
"""What the CUDA provider is asked for; it refuses a graph that it would leave a node of to another one."""


@dataclass(frozen=True, slots=True)
class _Bound:
    """One bucket's memory on the device, and the options that name its capture."""

    binding: Any
    options: Any
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


class Loaded(Protocol):
    """A loaded graph, such as a `GraphSession`."""

    @property
    def provider(self) -> str: ...  # noqa: D102  # as the session's
    @property
    def nodes(self) -> Mapping[str, int]: ...  # noqa: D102
    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...  # noqa: D102
    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...  # noqa: D102
    @property
    def runtime(self) -> Any: ...  # noqa: D102  # onnxruntime's own


class CapturedRuns:
    """A session's runs by bucket. Not safe for several threads at once: they would share inputs."""

    def __init__(self, session: Loaded, buckets: Sequence[int], device: str) -> None:
        """Take memory on `device`, `cuda` or `cpu`, for inputs and outputs of every bucket."""
        self.provider, self.nodes = session.provider, session.nodes
        self.inputs, self.outputs = session.inputs, session.outputs
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
        options = runtime().RunOptions()
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
    return runtime().OrtValue.ortvalue_from_numpy(np.zeros(dims, spec.dtype), device, 0)
