"""Which one field says most of a label: a leak, where it says nearly all.

Legend: n rows, W columns of a block that belong to one field.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rankd_contract.encoding import Encoder
from rankd_contract.schema import Entity
from rankd_training.examples.examples import Examples
from rankd_training.measures.metrics import Ranking

__all__ = ["most_telling"]

_MOST_ROWS = 100_000


def most_telling(examples: Examples, task: int) -> tuple[str, float]:
    """Return the field that alone ranks validation rows best, and its AUC there.

    A number ranks by itself, either way; an id by the share of ones among training rows that have it; a list
    by its first value.
    """
    train_n, valid_n = (_spread(examples.rows[split]) for split in ("train", "valid"))
    label_n = examples.label_nT[:, task]
    best = ("", 0.0)
    for entity in Entity:
        block = examples.blocks[entity]
        for at in Encoder(examples.schema, entity).layout.fields:
            if at.field.num_ids:
                id_n = block.ids[:, at.ids.start]
                score_n = _rates(id_n[train_n], label_n[train_n], id_n[valid_n])
            else:
                score_n = block.values[valid_n, at.values.start]
            auc = Ranking(label_n[valid_n], score_n).auc()
            if auc is None:
                return best  # rows of one class, which no field can tell apart
            best = max(best, (at.field.name, max(auc, 1 - auc)), key=lambda found: found[1])
    return best


def _spread(row_n: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Some of many rows, from all along the file."""
    return row_n[:: max(1, len(row_n) // _MOST_ROWS)]


def _rates(
    known_n: npt.NDArray[np.int32], label_n: npt.NDArray[np.float32], asked_n: npt.NDArray[np.int32]
) -> npt.NDArray[np.float64]:
    """The share of ones that each asked id has among known ones; of all, where it is not known."""
    ids, code_n = np.unique(known_n, return_inverse=True)
    rates = np.bincount(code_n, label_n) / np.bincount(code_n)
    at = np.minimum(np.searchsorted(ids, asked_n), len(ids) - 1)
    return np.where(ids[at] == asked_n, rates[at], label_n.mean())
