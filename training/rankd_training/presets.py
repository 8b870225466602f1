"""Settings that were tried: per data set and model, chosen on the validation split alone.

How they were chosen and what they give is in docs/results/movielens-100k.md. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["preset"]

_MOVIELENS: Mapping[str, Mapping[str, Any]] = {
    "mlcc": {"epochs": 8, "patience": 2, "batch_size": 1024, "learning_rate": 1e-3},
    "dcnv2": {"epochs": 8, "patience": 2, "batch_size": 1024, "learning_rate": 1e-3},
    "lr": {"epochs": 20, "patience": 3, "batch_size": 1024, "learning_rate": 3e-3},
}
_PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "movielens-100k": _MOVIELENS,
    "movielens-synthetic": _MOVIELENS,
}


def preset(data: str | None, model: str) -> dict[str, Any]:
    """Return keyword arguments for `TrainSettings`; none for a data set or model that was never tried."""
    return {**_PRESETS.get(data or "", {}).get(model, {})}
