"""Scores as the bundle's graph gives them, everything computed for every request."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rankd_contract.signature import SCORES
from rankd_service.inference.batch import Batch
from rankd_service.inference.buckets import Bucketed
from rankd_service.inference.session import GraphSession

__all__ = ["Session", "WholeGraph"]

Session = GraphSession | Bucketed
"""One graph, ready to run in any size."""


class WholeGraph:
    """One session over the whole graph."""

    def __init__(self, session: Session) -> None:
        """Keep the session."""
        self._session = session

    def score(self, batch: Batch) -> NDArray[np.float32]:
        """-> the graph's scores float32 [N, T]."""
        return self._session.run((SCORES,), batch.tensors)[0]
