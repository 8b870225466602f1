"""The one place that touches onnxruntime: a typed session over one graph.

The provider is read back from the session: asking for CUDA is no proof of getting it.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
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
    "tensor(float16)": "float16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
# The runtime writes lines of its own that are no JSON; what it would write of an error, it raises as well.
_SEVERITY_FATAL = 4
ort.set_default_logger_severity(_SEVERITY_FATAL)

_log = logging.getLogger(__name__)


class GraphSession:
    """One graph, ready to run. Safe to call from several threads."""

    def __init__(self, graph: Path, threads: int, provider: ProviderChoice) -> None:
        """Load the graph. Raises BundleRefused where onnxruntime cannot, or where required CUDA is absent."""
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # A spinning pool takes whole cores from the event loop and from Redis while it waits.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = _SEVERITY_FATAL
        wanted = [_CPU] if provider is ProviderChoice.CPU else [_CUDA, _CPU]
        try:
            with _prints_logged():
                if provider is not ProviderChoice.CPU and _available(_CUDA):
                    ort.preload_dlls()
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


@contextmanager
def _prints_logged() -> Iterator[None]:
    """The runtime's Python side prints what it could not load, and that it falls back."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        for line in filter(str.strip, printed.getvalue().splitlines()):
            _log.warning("onnxruntime: %s", line)


def _available(provider: str) -> bool:
    return provider in ort.get_available_providers()


def _spec(node: Any) -> TensorSpec:
    return TensorSpec(node.name, _DTYPES.get(node.type, node.type), tuple(node.shape))
