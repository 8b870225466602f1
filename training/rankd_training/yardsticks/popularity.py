"""How often this item was clicked, whoever looked at it: the floor, which knows no user and no interaction.

Legend: n rows, T tasks, G items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankd_contract.schema import Entity, Kind
from rankd_training.data.splits import SPLIT_NAMES
from rankd_training.errors import SettingError
from rankd_training.examples.examples import Examples

__all__ = ["Popularity", "PopularityConfig", "fit_popularity"]

TRAIN = SPLIT_NAMES[0]


@dataclass(frozen=True, slots=True)
class PopularityConfig:
    """How much the overall rate counts.

    Attributes:
        prior_rows: rows at the overall rate that every item starts with, so that one click is no certainty.
    """

    prior_rows: float = 20.0


@dataclass(frozen=True, slots=True)
class Popularity:
    """Rates by row, computed once."""

    examples: Examples
    rate_nT: NDArray[np.float32]

    def predict(self, split: str) -> NDArray[np.float32]:
        """Return each row's item's rate [n, T]; an item that training has not seen has the overall rate."""
        return self.rate_nT[self.examples.rows[split]]


def fit_popularity(examples: Examples, config: PopularityConfig) -> Popularity:
    """Count the training rows of every item. Raises SettingError."""
    if not config.prior_rows > 0:
        raise SettingError(f"prior_rows: expected a number above 0, got {config.prior_rows}")
    item_n = _items(examples)
    train_n = examples.rows[TRAIN]
    label_nT = examples.label_nT[train_n].astype(np.float64)
    overall_T = label_nT.mean(0)
    num_items = int(item_n.max()) + 1
    rows_G = np.bincount(item_n[train_n], minlength=num_items)
    clicks_GT = np.stack(
        [np.bincount(item_n[train_n], weights=label_n, minlength=num_items) for label_n in label_nT.T], axis=1
    )
    rate_GT = (clicks_GT + config.prior_rows * overall_T) / (rows_G[:, None] + config.prior_rows)
    return Popularity(examples, rate_GT[item_n].astype(np.float32))


def _items(examples: Examples) -> NDArray[np.int64]:
    """Number the items: by the field that holds their key, or where there is none by all their fields."""
    block = examples.blocks[Entity.ITEM]
    keys = {view.key for view in examples.schema.of(Entity.ITEM)}
    for entry in examples.schema.layout(Entity.ITEM).fields:
        if entry.field.source in keys and entry.field.kind is Kind.CATEGORICAL:
            return np.unique(block.ids[:, entry.ids.start], return_inverse=True)[1]
    bytes_n = np.concatenate([np.ascontiguousarray(part).view(np.uint8) for part in _parts(examples)], axis=1)
    whole_n = np.ascontiguousarray(bytes_n).view(np.dtype((np.void, bytes_n.shape[1])))[:, 0]
    return np.unique(whole_n, return_inverse=True)[1]


def _parts(examples: Examples) -> list[NDArray[np.generic]]:
    block = examples.blocks[Entity.ITEM]
    return [part for part in (block.ids, block.values) if part.shape[1]]
