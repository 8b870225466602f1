"""What is asked: one request again and again, or requests made of users and items drawn at random."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["drawn_bodies", "zipf_shares"]


def drawn_bodies(
    users: Sequence[str],
    items: Sequence[str],
    candidates: int,
    *,
    zipf: float,
    count: int,
    seed: int,
    settings: dict[str, Any],
) -> list[bytes]:
    """Make `count` requests: a random user each, and different items, the first of the list most often."""
    rng = np.random.default_rng(seed)
    shares = zipf_shares(len(items), zipf)
    bodies = []
    for user in rng.integers(0, len(users), count).tolist():
        # Drawn without replacement: the largest of independently perturbed log-shares (Gumbel top-k).
        keys = np.log(shares) + rng.gumbel(size=len(items))
        chosen = np.argpartition(-keys, candidates - 1)[:candidates]
        rng.shuffle(chosen)
        ids = [items[at] for at in chosen.tolist()]
        bodies.append(json.dumps({"user": users[user], "item_ids": ids, **settings}).encode())
    return bodies


def zipf_shares(n: int, exponent: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return how often each of n things is asked for, summing to 1; exponent 0 is all alike."""
    weights = np.arange(1, n + 1, dtype=np.float64) ** -exponent
    return np.asarray(weights / weights.sum())
