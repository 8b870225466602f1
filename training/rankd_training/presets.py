"""Settings that were tried: per data set and model, chosen on the validation split alone.

How they were chosen and what they give is in docs/results/movielens-100k.md. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

__all__ = ["preset"]

# Five of six rows of the later splits belong to users that training has not seen, so user ids are mostly hidden.
_STRANGERS = {"user_id": 0.9}

_MOVIELENS: Mapping[str, Mapping[str, Any]] = {
    "mlcc": {
        "epochs": 8,
        "patience": 2,
        "batch_size": 512,
        "learning_rate": 3e-4,
        "embedding_decay": 1.0,
        "unknown_rates": _STRANGERS,
        "model_config": {"dropout": 0.5, "hidden": [128, 64]},
    },
    "dcnv2": {
        "epochs": 8,
        "patience": 2,
        "batch_size": 512,
        "learning_rate": 3e-4,
        "embedding_decay": 1.0,
        "unknown_rates": _STRANGERS,
    },
    "lr": {
        "epochs": 20,
        "patience": 3,
        "batch_size": 512,
        "learning_rate": 1e-2,
        "embedding_decay": 0.0,
        "unknown_rates": _STRANGERS,
    },
}
_PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "movielens-100k": _MOVIELENS,
    "movielens-synthetic": _MOVIELENS,
}


def preset(data: str | None, model: str) -> dict[str, Any]:
    """Return keyword arguments for `TrainSettings`; none for a data set or model that was never tried."""
    return deepcopy(dict(_PRESETS.get(data or "", {}).get(model, {})))
