"""Gradient-boosted trees from scikit-learn (histograms, categories as such), one model a task.

The 254 most frequent values of a category are told apart and the rest are one, which is the most that a
histogram of scikit-learn holds.

Legend: n rows, C columns, T tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from rankd_training.data.splits import SPLIT_NAMES
from rankd_training.examples.examples import Examples
from rankd_training.yardsticks.columns import FlatTable, flatten

__all__ = ["GBDT", "GBDTConfig", "fit_gbdt"]

TRAIN, VALID, _ = SPLIT_NAMES
_MOST_CATEGORIES = 255


@dataclass(frozen=True, slots=True)
class GBDTConfig:
    """Growth stops by the AUC of the validation rows.

    Attributes:
        trees: at most.
        patience: trees without a better validation AUC after which growth stops.
        learning_rate: share of each tree that counts.
        leaves: of each tree.
        rows_a_leaf: at least.
        share_of_columns: that each split may choose from.
        decay: L2 on the leaves' values.
    """

    trees: int = 1000
    patience: int = 50
    learning_rate: float = 0.05
    leaves: int = 31
    rows_a_leaf: int = 50
    share_of_columns: float = 0.5
    decay: float = 0.0


@dataclass(frozen=True, slots=True)
class GBDT:
    """Fitted trees a task."""

    examples: Examples
    value_nC: NDArray[np.float32]
    models: tuple[Any, ...]

    def predict(self, split: str) -> NDArray[np.float32]:
        """Return probabilities [n, T]."""
        value_nC = self.value_nC[self.examples.rows[split]]
        return np.stack([model.predict_proba(value_nC)[:, 1] for model in self.models], 1).astype(np.float32)


def fit_gbdt(examples: Examples, config: GBDTConfig, *, seed: int) -> GBDT:
    """Grow trees for each task."""
    table = flatten(examples)
    value_nC = _few_categories(table)
    train_n, valid_n = examples.rows[TRAIN], examples.rows[VALID]
    models = []
    for label_n in examples.label_nT.T:
        model = HistGradientBoostingClassifier(
            learning_rate=config.learning_rate,
            max_iter=config.trees,
            max_leaf_nodes=config.leaves,
            min_samples_leaf=config.rows_a_leaf,
            max_features=config.share_of_columns,
            l2_regularization=config.decay,
            categorical_features=table.categorical_C,
            early_stopping=True,
            n_iter_no_change=config.patience,
            scoring="roc_auc",
            random_state=seed,
        )
        model.fit(value_nC[train_n], label_n[train_n], X_val=value_nC[valid_n], y_val=label_n[valid_n])
        models.append(model)
    return GBDT(examples, value_nC, tuple(models))


def _few_categories(table: FlatTable) -> NDArray[np.float32]:
    value_nC = table.value_nC.copy()
    # The rank by frequency is the category, so the rare ones are those beyond a bound. NaN stays NaN.
    value_nC[:, table.categorical_C] = np.minimum(value_nC[:, table.categorical_C], _MOST_CATEGORIES - 1)
    return value_nC
