"""How long and in which steps a run trains where its settings leave that to the number of rows.

What suits a million rows is no training at all for a thousand: ten passes in batches of 1,024 are ten steps.
So batches shrink until a pass has enough steps, and patience and length are counted in steps rather than
passes. Embeddings of ids that occur a few times are what a small table overfits by: they lose a share a
pass, and some ids are hidden. docs/results/small-tables.md has what it brings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from rankd_contract.schema import Kind
from rankd_training.examples.examples import Examples
from rankd_training.learning.optimisers import table_rate
from rankd_training.settings import TrainSettings

__all__ = ["sized"]

_LARGEST_BATCH, _SMALLEST_BATCH = 1024, 32
_STEPS_A_PASS = 64
_EPOCHS, _STEPS = 10, 3000  # at most, whichever is longer
_PATIENCE, _PATIENT_STEPS = 2, 300
_LOST_A_PASS, _LOST_A_STEP = 0.1, 0.02  # of an embedding, at most; row by row a step may take a little more
_FEW = 200  # of the rarer label: above that the AUC of validation rows is steady enough to stop on
_HIDDEN, _ROWS_AN_ID, _IDS = 0.2, 50, 32  # share of a field's ids where they have fewer rows, if so many


def sized(settings: TrainSettings, examples: Examples) -> TrainSettings:
    """Return the settings with nothing left open; what is given stays."""
    num_rows = len(examples.rows["train"])
    batch_size = settings.batch_size or _batch_size(num_rows)
    steps = -(-num_rows // batch_size)
    epochs = settings.epochs or max(_EPOCHS, -(-_STEPS // steps))
    # Rates that fall are to reach their end.
    patience = epochs if settings.schedule != "constant" else max(_PATIENCE, -(-_PATIENT_STEPS // steps))
    decay, stop_on, rates = settings.embedding_decay, settings.stop_on, settings.unknown_rates
    if stop_on == "auto":
        stop_on = "log_loss" if _rarest(examples) < _FEW else "auc"
    return replace(
        settings,
        batch_size=batch_size,
        epochs=epochs,
        patience=settings.patience or patience,
        stop_on=stop_on,
        embedding_decay=min(_LOST_A_PASS / steps, _LOST_A_STEP) / table_rate(settings)
        if decay is None
        else decay,
        unknown_rates=_of_rare_ids(examples) if rates is None else rates,
    )


def _batch_size(num_rows: int) -> int:
    size = _LARGEST_BATCH
    while size > _SMALLEST_BATCH and num_rows < _STEPS_A_PASS * size:
        size //= 2
    return size


def _rarest(examples: Examples) -> int:
    """Rows of the rarer label among validation rows, of the task that has fewest."""
    total, positives = len(examples.rows["valid"]), examples.positives("valid")
    return min(min(int(n), total - int(n)) for n in positives)


def _of_rare_ids(examples: Examples) -> Mapping[str, float]:
    """By field, the share to hide of ids that training rows have a few times each."""
    train_n, rates = examples.rows["train"], {}
    for entity, block in examples.blocks.items():
        for entry in examples.schema.layout(entity).fields:
            if entry.field.kind is not Kind.CATEGORICAL or entry.field.shares:
                continue
            if len(train_n) >= _ROWS_AN_ID * examples.schema.cardinality(entry.field):
                continue  # however many ids occur, they have rows enough
            # Twenty times as fast on ten million rows as `unique`, which sorts.
            ids = np.count_nonzero(np.bincount(block.ids[train_n, entry.ids.start]))
            if ids >= _IDS and len(train_n) < _ROWS_AN_ID * ids:
                rates[entry.field.name] = _HIDDEN
    return rates
