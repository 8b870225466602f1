"""How long and in which steps a run trains where its settings leave that to the number of rows.

What suits a million rows is no training at all for a thousand: ten passes in batches of 1,024 are ten steps.
So batches shrink until a pass has enough steps, and patience and length are counted in steps rather than
passes. Of what was tried on seven tables of 400 to 40,000 rows (docs/results/small-tables.md) this was the
best; from some 150,000 rows on it is ten passes in batches of 1,024.
"""

from __future__ import annotations

from dataclasses import replace

from rankd_training.examples.examples import Examples
from rankd_training.settings import TrainSettings

__all__ = ["sized"]

_LARGEST_BATCH, _SMALLEST_BATCH = 1024, 32
_STEPS_A_PASS = 64
_EPOCHS, _STEPS = 10, 3000  # at most, whichever is longer
_PATIENCE, _PATIENT_STEPS = 2, 300
_LOST_A_PASS = 0.1  # of an embedding
_FEW = 200  # of the rarer label: above that the AUC of validation rows is steady enough to stop on


def sized(settings: TrainSettings, examples: Examples) -> TrainSettings:
    """Return the settings with nothing left open; what is given stays."""
    num_rows = len(examples.rows["train"])
    batch_size = settings.batch_size or _batch_size(num_rows)
    steps = -(-num_rows // batch_size)
    decay, stop_on = settings.embedding_decay, settings.stop_on
    rate = settings.embedding_learning_rate or settings.learning_rate
    if stop_on == "auto":
        stop_on = "log_loss" if _rarest(examples) < _FEW else "auc"
    return replace(
        settings,
        batch_size=batch_size,
        epochs=settings.epochs or max(_EPOCHS, -(-_STEPS // steps)),
        patience=settings.patience or max(_PATIENCE, -(-_PATIENT_STEPS // steps)),
        stop_on=stop_on,
        embedding_decay=_LOST_A_PASS / (rate * steps) if decay is None else decay,
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
