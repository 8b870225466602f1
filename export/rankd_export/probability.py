"""Logits to probabilities, for graphs."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["probability"]


def probability(logit: Tensor) -> Tensor:
    """1 / (1 + exp(-logit)), written out: of the same shape, as exact in relative terms as its type is.

    onnxruntime's Sigmoid on the CPU is a rational approximation that is off by up to 3e-8 in absolute terms,
    0 below -18 and not even monotonic there, so that it lost the order of all scores of rare events.
    """
    return torch.reciprocal(1 + torch.exp(-logit))
