"""Task scores -> ranking score -> order.

The ranking score is the weighted mean of the task scores. It is summed task by task and not by a matrix
product: a candidate's score must not depend, not even in its last bit, on how many others are in the request.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ranking", "fuse", "rank"]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Positions of the chosen candidates in the order of the answer [K], and their places from 1 [K]."""

    order: NDArray[np.intp]
    ranks: NDArray[np.intp]


def fuse(scores_NT: NDArray[np.float32], weights_T: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the weighted mean float32 [N] of the task scores; `weights_T` sum to 1."""
    fused: NDArray[np.float64] = scores_NT[:, 0] * weights_T[0]
    for task in range(1, len(weights_T)):
        fused += scores_NT[:, task] * weights_T[task]
    return fused.astype(np.float32)


def rank(scores_N: NDArray[np.float32], top_k: int | None, sort: bool, scored: int) -> Ranking:
    """Rank by descending score; ties keep the input order, scores that are no numbers come last.

    Candidates from `scored` on were not scored: they follow all others, in the input order. `top_k` keeps the
    best; without `sort` those are answered in the input order, each with its rank.
    """
    keys_N = -scores_N[:scored]
    keys_N[~np.isfinite(keys_N)] = np.inf
    order = np.argsort(keys_N, kind="stable")
    if scored < len(scores_N):
        order = np.concatenate([order, np.arange(scored, len(scores_N))])
    order = order[:top_k]
    ranks = np.arange(1, len(order) + 1)
    if sort:
        return Ranking(order, ranks)
    back = np.argsort(order)
    return Ranking(order[back], ranks[back])
