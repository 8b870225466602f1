"""Several requests' tensors -> those of one run, and the run's scores back to each request.

A graph takes any number of users' rows and of candidates, and `in_row` says which candidate is whose; so
requests are joined by laying them one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankd_contract.signature import ROW

__all__ = ["join", "split"]

Tensors = Mapping[str, NDArray[Any]]


def join(requests: Sequence[Tensors], item_inputs: frozenset[str]) -> dict[str, NDArray[Any]]:
    """Lay requests of one model one after the other; `item_inputs` have a row a candidate."""
    joined = {name: np.concatenate([r[name] for r in requests]) for name in requests[0]}
    of_users = [name for name in requests[0] if name != ROW and name not in item_inputs]
    if of_users:
        before = 0
        rows = []
        for request in requests:
            rows.append(request[ROW] + before)
            before += len(request[of_users[0]])
        joined[ROW] = np.concatenate(rows)
    return joined


def split(scores_NT: NDArray[np.float32], sizes: Sequence[int]) -> list[NDArray[np.float32]]:
    """Cut a run's scores into those of requests with so many candidates each, in order; no row is shared."""
    parts, end = [], 0
    for size in sizes:
        parts.append(scores_NT[end : end + size].copy())
        end += size
    return parts
