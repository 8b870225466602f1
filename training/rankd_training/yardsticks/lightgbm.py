"""Gradient-boosted trees from LightGBM, one model a task: all values of a category, and fast.

Needs the package lightgbm (`pip install 'rankd[yardsticks]'`). Its defaults are LightGBM's own but for slower
steps, shares of rows and columns, and categories of twenty rows instead of a hundred, without which ids are
lost on small tables (docs/results/small-tables.md).

Legend: n rows, C columns, T tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from rankd_training.data.splits import SPLIT_NAMES
from rankd_training.examples.examples import Examples
from rankd_training.yardsticks.columns import flatten

__all__ = ["LightGBM", "LightGBMConfig", "fit_lightgbm"]

TRAIN, VALID, _ = SPLIT_NAMES


@dataclass(frozen=True, slots=True)
class LightGBMConfig:
    """Growth stops by the AUC of the validation rows.

    Attributes:
        trees: at most.
        patience: trees without a better validation AUC after which growth stops.
        learning_rate: share of each tree that counts.
        leaves: of each tree.
        rows_a_leaf: at least.
        share_of_columns: that each tree may choose from.
        share_of_rows: that each tree is grown on.
        decay: L2 on the leaves' values.
        category_smoothing: draws the effect of rare categories together.
        rows_a_category: that a group of categories needs to be split off.
        threads: results do not depend on their number.
    """

    trees: int = 2000
    patience: int = 50
    learning_rate: float = 0.05
    leaves: int = 31
    rows_a_leaf: int = 20
    share_of_columns: float = 0.8
    share_of_rows: float = 0.8
    decay: float = 0.0
    category_smoothing: float = 10.0
    rows_a_category: int = 20
    threads: int = 1


@dataclass(frozen=True, slots=True)
class LightGBM:
    """Fitted trees a task."""

    examples: Examples
    value_nC: NDArray[np.float32]
    models: tuple[Any, ...]

    def predict(self, split: str) -> NDArray[np.float32]:
        """Return probabilities [n, T]."""
        value_nC = self.value_nC[self.examples.rows[split]]
        return np.stack([model.predict(value_nC) for model in self.models], 1).astype(np.float32)


def fit_lightgbm(examples: Examples, config: LightGBMConfig, *, seed: int) -> LightGBM:
    """Grow trees for each task."""
    table = flatten(examples)
    train_n, valid_n = examples.rows[TRAIN], examples.rows[VALID]
    settings = {
        "objective": "binary",
        "metric": "auc",
        "learning_rate": config.learning_rate,
        "num_leaves": config.leaves,
        "min_data_in_leaf": config.rows_a_leaf,
        "feature_fraction": config.share_of_columns,
        "bagging_fraction": config.share_of_rows,
        "bagging_freq": 1,
        "lambda_l2": config.decay,
        "cat_smooth": config.category_smoothing,
        "min_data_per_group": config.rows_a_category,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": config.threads,
        "verbosity": -1,
    }
    categorical = [int(c) for c in np.flatnonzero(table.categorical_C)]
    models = []
    for label_n in examples.label_nT.T:
        train = lightgbm.Dataset(
            table.value_nC[train_n], label_n[train_n], categorical_feature=categorical, params=settings
        )
        valid = lightgbm.Dataset(table.value_nC[valid_n], label_n[valid_n], reference=train)
        models.append(
            lightgbm.train(
                settings,
                train,
                config.trees,
                [valid],
                callbacks=[lightgbm.early_stopping(config.patience, verbose=False)],
            )
        )
    return LightGBM(examples, table.value_nC, tuple(models))
