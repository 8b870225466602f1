"""The one place that touches onnxruntime: a typed session over one graph.

The provider is read back from the session: asking for CUDA is no proof of getting it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from rankd_contract.signature import TensorSpec
from rankd_service.errors import BundleRefused
from rankd_service.settings import ProviderChoice

__all__ = ["GraphSession"]

# The runtime keeps a queue of usage events in the user's cache unless told not to.
ort.disable_telemetry_events()

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
_SEVERITY_ERROR = 3


class GraphSession:
    """One graph, ready to run. Safe to call from several threads."""

    def __init__(self, graph: Path, threads: int, provider: ProviderChoice) -> None:
        """Load the graph. Raises BundleRefused where onnxruntime cannot, or where required CUDA is absent."""
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # A spinning pool takes whole cores from the event loop and from Redis while it waits.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = _SEVERITY_ERROR
        wanted = [_CPU] if provider is ProviderChoice.CPU else [_CUDA, _CPU]
        if provider is not ProviderChoice.CPU and _CUDA in ort.get_available_providers():
            ort.preload_dlls()
        try:
            self._session: Any = ort.InferenceSession(
                str(graph), options, [p for p in wanted if _available(p)]
            )
        except Exception as error:  # onnxruntime's own errors share no other base
            raise BundleRefused(f"{graph}: onnxruntime cannot load it: {error}") from error
        self.provider: str = self._session.get_providers()[0]
        if provider is ProviderChoice.REQUIRE_CUDA and self.provider != _CUDA:
            raise BundleRefused(
                f"{graph}: inference.provider is require_cuda, but the session runs on {self.provider}; "
                "install the CUDA extra and check the driver, or choose prefer_cuda"
            )
        self.inputs = tuple(_spec(node) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(node) for node in self._session.get_outputs())

    def run(self, outputs: Sequence[str], tensors: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Run the graph once -> the named outputs."""
        result: list[NDArray[np.float32]] = self._session.run(outputs, tensors)
        return result


def _available(provider: str) -> bool:
    return provider in ort.get_available_providers()


def _spec(node: Any) -> TensorSpec:
    return TensorSpec(node.name, _DTYPES.get(node.type, node.type), tuple(node.shape))
