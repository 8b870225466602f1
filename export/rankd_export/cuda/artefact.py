"""The CUDA graph of a run, proved as far as a machine without a device can, and what the manifest says of it.

- float32: the model's scores within the tolerance of every export, on the CPU provider.
- Fewer bits: what they lose on validation rows is allowed (`quality.py`), judged by a graph that rounds where
  they would; then float16 itself, and bfloat16 as rounded, near the model on real requests.
- Every node has a CUDA kernel (`kernels.py`). What a device computes, a service compares when it loads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import nn

from rankd_contract.calibration import Calibration
from rankd_contract.cuda_graph import BUCKETS, CudaGraph, check_buckets
from rankd_contract.score_tolerance import worst_excess
from rankd_export.cuda.graph import to_cuda
from rankd_export.cuda.kernels import check_kernels, known_kernels
from rankd_export.cuda.narrow import Narrow, narrowed, rounded
from rankd_export.cuda.operators import placed
from rankd_export.errors import GraphRefused, ParityFailed, RunUnusable
from rankd_export.parity import TOLERANCE, Request, compare, run_onnx, users_of
from rankd_export.quality import MAX_AUC_LOSS, judge, losses
from rankd_export.weights import loaded
from rankd_training.examples.examples import Examples

__all__ = ["CudaPlan", "CudaPrecision", "make"]


class CudaPrecision(Enum):
    """What the numbers of a CUDA graph are."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


# Of a probability; the loosest is the loosest that a service takes.
_TOLERANCE: Mapping[CudaPrecision, float] = {
    CudaPrecision.FP32: TOLERANCE,
    CudaPrecision.FP16: 5e-3,
    CudaPrecision.BF16: 1e-2,
}


@dataclass(frozen=True, slots=True)
class CudaPlan:
    """How a run's CUDA graph is to be.

    Attributes:
        precision: of its products and tables.
        buckets: how many candidates a run may have, ascending.
        examples: the file that the run was trained on, for fewer bits.
        max_auc_loss: how much AUC any task may lose by them.
    """

    precision: CudaPrecision = CudaPrecision.FP32
    buckets: tuple[int, ...] = BUCKETS
    examples: Path | None = None
    max_auc_loss: float = MAX_AUC_LOSS

    def check(self) -> None:
        """Raise RunUnusable where it cannot be followed."""
        try:
            check_buckets(self.buckets)
        except ValueError as error:
            raise RunUnusable(str(error)) from error
        if self.precision is not CudaPrecision.FP32 and self.examples is None:
            raise RunUnusable(
                f"a CUDA graph in {self.precision.value} needs examples: what it loses is measured"
            )


def make(
    model: nn.Module,
    graph: onnx.ModelProto,
    plan: CudaPlan,
    requests: Sequence[Request],
    folder: Path,
    *,
    examples: Examples | None = None,
    calibration: Calibration | None = None,
) -> tuple[CudaGraph, onnx.ModelProto]:
    """Make the CUDA graph of a portable one in float32.

    Args:
        model: what both are compared with.
        graph: the portable graph.
        plan: how it is to be.
        requests: real ones; those of one user are compared.
        folder: where the graph's large tensors lie.
        examples: whose validation rows say what fewer bits lose.
        calibration: what the graph's own calibration is compared with.

    Raises:
        NoCudaKernel: a node would not run on a device.
        GraphRefused: there is nothing to be put into fewer bits.
        ParityFailed, QualityLost: it is not near enough to the model.
    """
    of_one = [request for request in requests if users_of(request) == 1]
    made = to_cuda(graph)
    about = CudaGraph(
        precision=plan.precision.value,
        buckets=plan.buckets,
        golden_tolerance=_TOLERANCE[plan.precision],
        onnxruntime=known_kernels().onnxruntime,
        operators=placed(made),
    )
    if plan.precision is CudaPrecision.FP32:
        report = compare(model, made, of_one, calibration=calibration, apart=folder)
        return replace(about, parity=report.to_json()), made
    kind = Narrow(plan.precision.value)
    if calibration is not None:
        raise GraphRefused(
            "a CUDA graph in fewer bits has no calibration of its own; the service's follows it"
        )
    assert examples is not None
    whole = loaded(graph, folder)
    lost = losses(whole, rounded(whole, kind), examples)
    judge(lost, plan.max_auc_loss)
    made = to_cuda(whole)
    less = narrowed(made, kind)
    check_kernels(less)
    runs_here = less if kind is Narrow.FP16 else rounded(made, kind)
    parity = _near(made, runs_here, of_one, about.golden_tolerance)
    return replace(about, parity=parity, lost={task: loss.to_json() for task, loss in lost.items()}), less


def _near(
    full: onnx.ModelProto, less: onnx.ModelProto, requests: Sequence[Request], tolerance: float
) -> dict[str, Any]:
    pairs = zip(run_onnx(full, requests), run_onnx(less, requests), strict=True)
    scores = [(a, b) for (_, a), (_, b) in pairs]
    difference = float(np.max([np.abs(a - b).max() for a, b in scores]))  # NaN stays
    for expected, found in scores:
        off, bound = worst_excess(found, expected, tolerance / 2)  # a device rounds at other places
        if not off <= bound:
            raise ParityFailed(
                f"scores in fewer bits differ by {off:.2e}, where a service would take {2 * bound:.0e}, half "
                "of which is left to the device. Export the CUDA graph in more bits"
            )
    return {"tolerance": tolerance, "max_score_error": difference}
