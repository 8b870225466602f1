"""Calibration inside the graph, for runtimes without Python beside them: the service's curves in float64.

Legend: N candidates, T tasks, K points of a curve.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from rankd_contract.calibration import NEAREST, Calibration, Curve, PiecewiseLinear, Platt
from rankd_export.probability import probability

__all__ = ["CalibratedScores"]


class CalibratedScores(nn.Module):
    """Scores [N, T] -> probabilities [N, T], a curve a task; a task without one keeps its scores."""

    def __init__(self, calibration: Calibration) -> None:
        super().__init__()
        self.curves = nn.ModuleList(map(_module, calibration.curves))

    def forward(self, score_NT: Tensor) -> Tensor:
        """-> float32, as the service's."""
        columns = [curve(score_NT[:, t : t + 1]) for t, curve in enumerate(self.curves)]
        return torch.cat(columns, dim=1)


def _module(curve: Curve | None) -> nn.Module:
    if curve is None:
        return nn.Identity()
    return _Platt(curve) if isinstance(curve, Platt) else _Lines(curve)


class _Platt(nn.Module):
    def __init__(self, curve: Platt) -> None:
        super().__init__()
        self.scale, self.shift = curve.scale, curve.shift

    def forward(self, score_N1: Tensor) -> Tensor:
        p_N1 = score_N1.double().clamp(NEAREST, 1 - NEAREST)
        logit_N1 = torch.log(p_N1) - torch.log(1 - p_N1)
        return probability(self.scale * logit_N1 + self.shift).float()


class _Lines(nn.Module):
    """Each score's segment is found by counting the points that it has reached."""

    points_K: Tensor
    slope_K: Tensor
    start_K: Tensor

    def __init__(self, curve: PiecewiseLinear) -> None:
        super().__init__()
        x, y = np.asarray(curve.scores), np.asarray(curve.probabilities)
        # Segment 0 lies before the first point, the last one after the last: both are flat.
        slope = np.concatenate([[0.0], np.diff(y) / np.diff(x), [0.0]])
        start = np.concatenate([[y[0]], y[:-1] - slope[1:-1] * x[:-1], [y[-1]]])
        for name, values in (("points_K", x), ("slope_K", slope), ("start_K", start)):
            self.register_buffer(name, torch.from_numpy(values))

    def forward(self, score_N1: Tensor) -> Tensor:
        p_N1 = score_N1.double()
        segment_N = (p_N1 >= self.points_K).sum(1)
        slope_N, start_N = self.slope_K[segment_N], self.start_K[segment_N]
        return (p_N1 * slope_N.unsqueeze(1) + start_N.unsqueeze(1)).float()
