"""What a model offers that can say what each of its scores was made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

__all__ = ["Explaining"]


@runtime_checkable
class Explaining(Protocol):
    """Computes the logits, and beside them how much was taken of each field."""

    def explained(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Inputs by signature name -> logits [N, T] and weights [N, S, O].

        S are the contract's `slot_names`: fields and the schema's crosses, the user's side before the item's;
        O are what the model crosses itself. A weight of zero says that it leaves the slot out.
        """
