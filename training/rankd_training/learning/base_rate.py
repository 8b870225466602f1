"""Where a model begins: at the share of positives that its training rows have, not at one half.

Legend: n rows, T tasks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from rankd_training.models.registry import RankingModel

__all__ = ["base_logits", "start_at_base_rate"]


def base_logits(label_nT: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the logit of each task's share of positives [T]; half a row a class keeps it finite."""
    positives_T = label_nT.sum(0, dtype=np.float64)
    logits: npt.NDArray[np.float64] = np.log((positives_T + 0.5) / (len(label_nT) - positives_T + 0.5))
    return logits


@torch.no_grad()
def start_at_base_rate(model: RankingModel, label_nT: npt.NDArray[np.floating]) -> None:
    """Set the constants of a fresh model's logits so that it says the base rate where it knows nothing.

    The prior of Lin et al., 2017, "Focal Loss for Dense Object Detection", section 3.3: with a bias of 0 the
    first steps go into learning that positives are rare, by every weight that can say so.
    """
    biases = model.output_biases()
    logit_T = torch.from_numpy(base_logits(label_nT))
    told = torch.split(logit_T, [bias.numel() for bias in biases])
    for bias, logits in zip(biases, told, strict=True):
        bias.copy_(logits)
