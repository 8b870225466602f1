"""Is the graph the model? Scores of torch and onnxruntime compared on real requests of several sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rankd_contract.calibration import Calibration
from rankd_contract.schema import Entity
from rankd_contract.score_tolerance import worst_excess
from rankd_contract.signature import CALIBRATED, FIELD_WEIGHTS, LOGITS, ROW, SCORES
from rankd_export.errors import ParityFailed
from rankd_training.models.explaining import Explaining

__all__ = ["TOLERANCE", "ParityReport", "Request", "compare", "run_onnx", "users_of"]

# The runtime keeps a queue of usage events in the user's cache unless told not to.
ort.disable_telemetry_events()

Request = Mapping[str, NDArray[Any]]

TOLERANCE = 1e-5
_CURVE_TOLERANCE = 1e-6
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


def users_of(request: Request) -> int:
    """Return how many user rows there are."""
    return next((len(array) for name, array in request.items() if name.startswith(_OF_USER)), 1)


def run_onnx(graph: onnx.ModelProto, requests: Sequence[Request]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Run requests through onnxruntime on the CPU -> logits and probabilities, each [N, T], per request."""
    return [(logits, scores) for logits, scores in _run(graph, requests, [LOGITS, SCORES])]


def compare(
    model: nn.Module,
    graph: onnx.ModelProto,
    requests: Sequence[Request],
    tolerance: float = TOLERANCE,
    calibration: Calibration | None = None,
    apart: Path | None = None,
) -> ParityReport:
    """Compare the graph with the module it came from, request by request.

    The bound holds for probabilities near one half, of which others may be off by 4 p (1 - p) as much
    (`score_tolerance.py`); for logits relative to max(1, |logit|); and likewise for the weights of a graph
    that explains its scores. What a graph with `calibration` gives is compared with what the service makes of
    the graph's own scores, to 1e-6. `apart` is the folder of the graph's large tensors, where they are not
    part of it.

    Raises:
        ParityFailed: with the size, the difference and the tolerance.
    """
    given = {value.name for value in graph.graph.output}
    names = [LOGITS, SCORES, *sorted(given & {FIELD_WEIGHTS, CALIBRATED})]
    sizes = []
    for request, outputs in zip(requests, _run(graph, requests, names, apart), strict=True):
        found = dict(zip(names, outputs, strict=True))
        logits, scores = found[LOGITS], found[SCORES]
        features = {name: torch.from_numpy(array) for name, array in request.items()}
        with torch.no_grad():
            want = model(features)
        expected = want.numpy()
        n = len(request[ROW])
        users = users_of(request)
        by_logit = _relative(logits, expected)
        probable = torch.sigmoid(want).numpy()
        by_score = float(np.abs(scores - probable).max())
        off, bound = worst_excess(scores, probable, tolerance)
        if not (by_logit <= tolerance and off <= bound):  # so that NaN fails too
            raise ParityFailed(
                f"{n} candidates of {users} users: scores differ by {off:.2e}, logits by {by_logit:.2e}; "
                f"allowed is {bound:.0e} and {tolerance:.0e}"
            )
        if FIELD_WEIGHTS in found:
            _check_weights(model, features, found[FIELD_WEIGHTS], tolerance)
        if CALIBRATED in found:
            _check_calibrated(found[CALIBRATED], scores, calibration)
        sizes.append(
            {"candidates": n, "users": users, "max_score_error": by_score, "max_logit_error": by_logit}
        )
    return ParityReport(tolerance, torch.__version__, ort.__version__, tuple(sizes))


def _check_weights(
    model: nn.Module, features: dict[str, Tensor], found: NDArray[Any], tolerance: float
) -> None:
    assert isinstance(model, Explaining)
    with torch.no_grad():
        _, expected = model.explained(features)
    by_weight = _relative(found, expected.numpy())
    if not by_weight <= tolerance:
        raise ParityFailed(
            f"{len(found)} candidates: what scores are made of differs by {by_weight:.2e}; "
            f"allowed is {tolerance:.0e}"
        )


def _check_calibrated(found: NDArray[Any], scores: NDArray[Any], calibration: Calibration | None) -> None:
    if calibration is None:
        raise ParityFailed(f"the graph has {CALIBRATED}, but there is no calibration to compare it with")
    by_probability = float(np.abs(found - calibration(scores)).max())
    if not by_probability <= _CURVE_TOLERANCE:
        raise ParityFailed(
            f"{len(found)} candidates: the graph's calibration differs from the service's by "
            f"{by_probability:.2e}; allowed is {_CURVE_TOLERANCE:.0e}"
        )


def _relative(found: NDArray[Any], expected: NDArray[Any]) -> float:
    return float((np.abs(found - expected) / np.maximum(1.0, np.abs(expected))).max())


def _run(
    graph: onnx.ModelProto, requests: Sequence[Request], names: Sequence[str], apart: Path | None = None
) -> list[list[NDArray[Any]]]:
    options = ort.SessionOptions()
    if apart is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(apart))
    session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [[np.asarray(array) for array in session.run(list(names), dict(r))] for r in requests]
