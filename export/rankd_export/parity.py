"""Is the graph the model? Scores of torch and onnxruntime compared on real requests of several sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from rankd_contract.schema import Entity
from rankd_contract.signature import LOGITS, ROW, SCORES
from rankd_export.errors import ParityFailed

__all__ = ["TOLERANCE", "ParityReport", "Request", "compare", "run_onnx"]

# The runtime keeps a queue of usage events in the user's cache unless told not to.
ort.disable_telemetry_events()

Request = Mapping[str, NDArray[Any]]

TOLERANCE = 1e-5
_OF_USER = tuple(f"in_{entity.value}_" for entity in (Entity.USER, Entity.CONTEXT))


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Largest absolute differences by number of candidates."""

    tolerance: float
    torch_version: str
    onnxruntime_version: str
    sizes: tuple[dict[str, float], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as it stands in the manifest."""
        return asdict(self)


def run_onnx(graph: onnx.ModelProto, requests: Sequence[Request]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Run requests through onnxruntime on the CPU -> logits and probabilities, each [N, T], per request."""
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    results = []
    for request in requests:
        logits, scores = session.run([LOGITS, SCORES], dict(request))
        results.append((np.asarray(logits), np.asarray(scores)))
    return results


def compare(
    model: nn.Module, graph: onnx.ModelProto, requests: Sequence[Request], tolerance: float = TOLERANCE
) -> ParityReport:
    """Compare the graph with the module it came from, request by request.

    The bound holds for probabilities in absolute terms, and for logits relative to max(1, |logit|).

    Raises:
        ParityFailed: with the size, the difference and the tolerance.
    """
    sizes = []
    for request, (logits, scores) in zip(requests, run_onnx(graph, requests), strict=True):
        with torch.no_grad():
            want = model({name: torch.from_numpy(array) for name, array in request.items()})
        expected = want.numpy()
        n = len(request[ROW])
        users = next((len(array) for name, array in request.items() if name.startswith(_OF_USER)), 1)
        by_logit = float((np.abs(logits - expected) / np.maximum(1.0, np.abs(expected))).max())
        by_score = float(np.abs(scores - torch.sigmoid(want).numpy()).max())
        if not max(by_logit, by_score) <= tolerance:  # so that NaN fails too
            raise ParityFailed(
                f"{n} candidates of {users} users: scores differ by {by_score:.2e}, logits by "
                f"{by_logit:.2e}; allowed is {tolerance:.0e}"
            )
        sizes.append(
            {"candidates": n, "users": users, "max_score_error": by_score, "max_logit_error": by_logit}
        )
    return ParityReport(tolerance, torch.__version__, ort.__version__, tuple(sizes))
