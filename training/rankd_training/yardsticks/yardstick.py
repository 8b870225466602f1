"""What every yardstick is, once it is fitted."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Yardstick"]


class Yardstick(Protocol):
    """Fitted on the training rows of some examples; it knows them, so a split's name is enough to ask it."""

    def predict(self, split: str) -> NDArray[np.float32]:
        """Return probabilities [n, T] of a split's rows, in their order."""
