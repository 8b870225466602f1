"""The form of a model that is traced: what it multiplies out beforehand, and in which order it computes."""

from __future__ import annotations

from torch import nn

from rankd_training.models.folding import Foldable

__all__ = ["serving_form"]


def serving_form(model: nn.Module) -> nn.Module:
    """Return the folded form of a model that has one, else the model; in evaluation mode.

    Whether both give the same scores is what the parity check finds out: it compares the graph with the model
    as it was trained.
    """
    return (model.folded() if isinstance(model, Foldable) else model).eval()
