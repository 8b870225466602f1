"""What a model offers that has a form which serves faster than the one it learns in."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn

__all__ = ["Foldable"]


@runtime_checkable
class Foldable(Protocol):
    """Knows weights that can be multiplied out beforehand, and orders that a runtime is faster with.

    Training keeps the form that learns; export asks for this one, and compares its scores with the other's.
    """

    def folded(self) -> nn.Module:
        """Return a module of the same function, in evaluation mode; the model itself stays as it is.

        It has the model's `forward`, and `explained` where the model has it. Exact algebra: what differs is
        the order of float32 additions, at most 1e-6 of a probability.
        """
