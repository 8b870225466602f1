"""A typed session of onnxruntime over one graph.

The provider, and how many nodes each provider took, are read back from the session: that the runtime lists
CUDA, or was asked for it, is no proof of getting it.
"""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankd_contract.signature import TensorSpec
from rankd_service.errors import BundleRefused
from rankd_service.inference.cuda import driver_absence
from rankd_service.inference.runtime import FATAL, runtime
from rankd_service.provider import ProviderChoice

__all__ = ["CUDA", "GraphSession", "cuda_absence"]

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
CUDA = _CUDA
"""The name of the provider of CUDA devices."""
# TF32 rounds to ten bits, which no recorded score would survive.
_CUDA_OPTIONS = {"use_tf32": "0"}
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
_log = logging.getLogger(__name__)


def cuda_absence() -> str | None:
    """Say in words why graphs cannot run on CUDA here, and what to do; None where nothing is in the way."""
    ort = runtime()
    if _CUDA not in ort.get_available_providers():
        return f"onnxruntime {ort.__version__} is a build without CUDA; install onnxruntime-gpu in its place"
    return driver_absence()


class GraphSession:
    """One graph, ready to run. Safe to call from several threads.

    Attributes:
        provider: where it runs: the first of the session's own providers.
        nodes: how many nodes of the graph each provider has taken; a provider may leave some to the CPU.
        fallback: why it runs on the CPU though CUDA was preferred; empty where that is not so.
        inputs: what the graph takes.
        outputs: what it gives.
    """

    def __init__(
        self,
        graph: Path,
        threads: int,
        provider: ProviderChoice,
        cuda: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Load the graph; `cuda` are further options of that provider.

        Raises BundleRefused where onnxruntime cannot, or where required CUDA is absent.
        """
        absence = None if provider is ProviderChoice.CPU else cuda_absence()
        if provider is ProviderChoice.REQUIRE_CUDA and absence:
            raise BundleRefused(f"{graph}: inference.provider is require_cuda, but {absence}")
        ort = runtime()
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # A spinning pool takes whole cores from the event loop and from Redis while it waits.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        options.log_severity_level = FATAL
        tries_cuda = provider is not ProviderChoice.CPU and absence is None
        try:
            with _prints_logged():
                if tries_cuda:
                    ort.preload_dlls()
                self._session: Any = ort.InferenceSession(
                    str(graph), options, [(_CUDA, {**_CUDA_OPTIONS, **cuda}), _CPU] if tries_cuda else [_CPU]
                )
        except Exception as error:  # onnxruntime's own errors share no other base
            raise BundleRefused(f"{graph}: onnxruntime cannot load it: {error}") from error
        self.provider: str = self._session.get_providers()[0]
        if provider is ProviderChoice.REQUIRE_CUDA and self.provider != _CUDA:
            raise BundleRefused(
                f"{graph}: inference.provider is require_cuda, but the session runs on {self.provider}; "
                "the log says what could not be loaded; pip install 'rankd[cuda]' brings the CUDA libraries"
            )
        silent = "onnxruntime gave no CUDA session, the log says why" if self.provider == _CPU else ""
        self.fallback = "" if provider is not ProviderChoice.PREFER_CUDA else absence or silent
        self.nodes = _placement(self._session)
        self.inputs = tuple(_spec(node) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(node) for node in self._session.get_outputs())

    @property
    def runtime(self) -> Any:
        """The runtime's own session, for runs at fixed addresses (`captured.py`)."""
        return self._session

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


def _placement(session: Any) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] += len(part.get_nodes())
    return dict(counts)


def _spec(node: Any) -> TensorSpec:
    return TensorSpec(node.name, _DTYPES.get(node.type, node.type), tuple(node.shape))
