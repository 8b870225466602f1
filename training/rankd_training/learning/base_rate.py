"""Where a model begins: at the share of positives that its training rows have, not at one half.

Legend: T tasks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from rankd_training.models.registry import RankingModel

__all__ = ["start_at_base_rate"]


@torch.no_grad()
def start_at_base_rate(model: RankingModel, positives_T: npt.NDArray[np.int64], num_rows: int) -> None:
    """Set the constants of a fresh model's logits so that it says the base rate where it knows nothing.

    The prior of Lin et al., 2017, "Focal Loss for Dense Object Detection", section 3.3: with a bias of 0 the
    first steps go into learning that positives are rare, by every weight that can say so.

    Args:
        model: as it was built.
        positives_T: training rows with a label of 1; half a row a class keeps the logits finite.
        num_rows: all of them.
    """
    logit_T = torch.from_numpy(np.log((positives_T + 0.5) / (num_rows - positives_T + 0.5)))
    biases = model.output_biases()
    for bias, told in zip(biases, torch.split(logit_T, [bias.numel() for bias in biases]), strict=True):
        bias.copy_(told)
