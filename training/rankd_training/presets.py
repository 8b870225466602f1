"""Settings that were tried: per data set and model, chosen on the validation split alone.

Random search with about as many trials for every model (65 to 75 on MovieLens-100k, 14 on the synthetic set),
then, on MovieLens-100k, three seeds for the best five; there `infnet` was not searched and borrows what the
others' settings say of the data. On diabetes130 the search was short, mostly one seed a trial: mlcc 13
trials, armnet 9, infnet 6, dnn 9, dcnv2 2, fm 1, lr none; wukong, dlrm, deepfm, mmoe, ple and optinter borrow
what the others' settings say of the data. What they give is in docs/results. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

__all__ = ["preset"]

# What the searches on diabetes130 agree on, for models that were not searched there.
_UNSEARCHED: Mapping[str, Any] = {
    "epochs": 8,
    "patience": 2,
    "batch_size": 1024,
    "learning_rate": 1e-3,
    "weight_decay": 1e-3,
    "embedding_decay": 1.0,
    "average_decay": 0.998,
}

# Where nothing was tried. Weights that are read alone, one a value, want larger steps than a network: of
# 0.001, 0.003 and 0.01 these gave the best validation AUC within ten epochs on diabetes130 and census-income.
_ANYWHERE: Mapping[str, Mapping[str, Any]] = {"lr": {"learning_rate": 0.01}, "fm": {"learning_rate": 0.003}}

# Five in six of MovieLens-100k's validation rows belong to users that training has not seen, so most user ids
# are hidden there; of the synthetic set's rows it is one in five.
_PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "movielens-100k": {
        "mlcc": {
            "epochs": 12,
            "patience": 3,
            "batch_size": 2048,
            "learning_rate": 5e-4,
            "embedding_decay": 1.0,
            "unknown_rates": {"user_id": 0.97},
            "model_config": {
                "embedding_width": 8,
                "embedding_std": 0.003,
                "hidden": [64, 32],
                "dropout": 0.5,
            },
        },
        "infnet": {
            "epochs": 6,
            "patience": 2,
            "batch_size": 512,
            "learning_rate": 1e-3,
            "embedding_decay": 1.0,
            "unknown_rates": {"user_id": 0.97},
        },
        "dcnv2": {
            "epochs": 12,
            "patience": 3,
            "batch_size": 256,
            "learning_rate": 5e-4,
            "embedding_decay": 0.0,
            "unknown_rates": {"user_id": 0.9},
            "model_config": {
                "embedding_std": 0.003,
                "cross_layers": 1,
                "hidden": [64, 32],
                "mix": [],
                "dropout": 0.5,
            },
        },
        "lr": {
            "epochs": 25,
            "patience": 3,
            "batch_size": 512,
            "learning_rate": 1e-2,
            "embedding_decay": 0.03,
            "unknown_rates": {"user_id": 0.97},
        },
    },
    "diabetes130": {
        "mlcc": {
            "epochs": 10,
            "patience": 2,
            "batch_size": 512,
            "learning_rate": 4.2e-4,
            "embedding_decay": 0.3,
            "average_decay": 0.998,
            "model_config": {
                "embedding_width": 16,
                "embedding_std": 0.1,
                "heads": 2,
                "hidden": [200, 200],
                "dropout": 0.0,
            },
        },
        "armnet": {
            "epochs": 8,
            "patience": 2,
            "batch_size": 1024,
            "learning_rate": 1.6e-3,
            "weight_decay": 1e-3,
            "embedding_decay": 1.0,
            "average_decay": 0.998,
            "model_config": {
                "embedding_width": 10,
                "embedding_std": 0.03,
                "heads": 1,
                "neurons": 64,
                "alpha": 1.5,
                "hidden": [64],
                "dropout": 0.5,
            },
        },
        "infnet": {
            "epochs": 8,
            "patience": 2,
            "batch_size": 1024,
            "learning_rate": 1.8e-3,
            "weight_decay": 0.01,
            "embedding_decay": 0.01,
        },
        "dcnv2": {
            "epochs": 12,
            "patience": 2,
            "batch_size": 1024,
            "learning_rate": 5.7e-4,
            "weight_decay": 0.1,
            "embedding_decay": 3.0,
            "model_config": {
                "embedding_width": 8,
                "embedding_std": None,
                "cross_layers": 3,
                "structure": "stacked",
                "hidden": [64],
                "mix": [64],
                "dropout": 0.2,
            },
        },
        "wukong": _UNSEARCHED,
        "dlrm": _UNSEARCHED,
        "deepfm": _UNSEARCHED,
        "mmoe": _UNSEARCHED,
        "ple": _UNSEARCHED,
        "optinter": {
            "epochs": 4,
            "patience": 2,
            "batch_size": 1024,
            "learning_rate": 1e-3,
            "embedding_decay": 1.0,
        },
        "dnn": {
            "epochs": 8,
            "patience": 2,
            "batch_size": 1024,
            "learning_rate": 1.5e-3,
            "weight_decay": 1e-3,
            "embedding_decay": 1.0,
            "model_config": {
                "embedding_width": 10,
                "embedding_std": 0.03,
                "hidden": [256, 128],
                "dropout": 0.1,
            },
        },
        "fm": {
            "epochs": 12,
            "patience": 2,
            "batch_size": 1024,
            "learning_rate": 2e-3,
            "embedding_decay": 0.3,
            "average_decay": 0.998,
        },
        "lr": {
            "epochs": 25,
            "patience": 3,
            "batch_size": 512,
            "learning_rate": 2e-3,
            "embedding_decay": 0.0,
        },
        # A probe of eight showed test AUC beside validation AUC, so it may stand a little too well.
        "lightgbm": {
            "rows_a_leaf": 50,
            "share_of_columns": 0.5,
            "category_smoothing": 20.0,
            "rows_a_category": 100,
        },
    },
    "movielens-synthetic": {
        "mlcc": {
            "epochs": 15,
            "patience": 2,
            "batch_size": 512,
            "learning_rate": 2e-3,
            "weight_decay": 0.1,
            "embedding_decay": 0.3,
            "unknown_rates": {"user_id": 0.2},
            "model_config": {"embedding_std": 0.03, "hidden": [64, 32], "dropout": 0.0},
        },
        "infnet": {
            "epochs": 6,
            "patience": 2,
            "batch_size": 512,
            "learning_rate": 2e-3,
            "weight_decay": 0.1,
            "embedding_decay": 0.3,
            "unknown_rates": {"user_id": 0.2},
        },
        "dcnv2": {
            "epochs": 15,
            "patience": 2,
            "batch_size": 512,
            "learning_rate": 2e-3,
            "weight_decay": 0.1,
            "embedding_decay": 1.0,
            "unknown_rates": {"user_id": 0.2},
            "model_config": {
                "embedding_std": 0.03,
                "cross_layers": 1,
                "structure": "stacked",
                "hidden": [64, 32],
                "mix": [],
                "dropout": 0.0,
            },
        },
        "lr": {
            "epochs": 25,
            "patience": 3,
            "batch_size": 2048,
            "learning_rate": 2e-2,
            "embedding_decay": 0.03,
            "unknown_rates": {},
        },
    },
}


def preset(data: str | None, model: str) -> dict[str, Any]:
    """Return keyword arguments for `TrainSettings`, for any data set and model; none, and its defaults do."""
    return deepcopy(dict(_PRESETS.get(data or "", {}).get(model, _ANYWHERE.get(model, {}))))
