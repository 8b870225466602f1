"""What a finished run says against itself; `compare` and the run's page hand it on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.metrics import log_loss

from rankd_training.examples.column_check import silent_columns
from rankd_training.examples.examples import Examples
from rankd_training.measures.metrics import TaskMetrics
from rankd_training.settings import TrainSettings

__all__ = ["run_warnings"]

_LEAST_TOLD = 3  # epochs: fewer are a try


def run_warnings(
    settings: TrainSettings, examples: Examples, valid: Mapping[str, TaskMetrics], best_epoch: int
) -> tuple[str, ...]:
    """Say what is doubtful about the data, the length of the training and the scores, a line each.

    Args:
        settings: of the run.
        examples: all its rows.
        valid: how good the scores of validation rows are, by task.
        best_epoch: from 1.
    """
    return (
        *silent_columns(examples),
        *_too_short(settings, best_epoch, len(examples.rows["train"])),
        *(() if settings.calibration != "none" else _worse_than_constant(examples, valid)),
    )


def _too_short(settings: TrainSettings, best_epoch: int, num_rows: int) -> list[str]:
    """Warn of a run that was better after its last epoch than ever before."""
    if best_epoch < settings.epochs or settings.epochs < _LEAST_TOLD:
        return []
    steps = settings.epochs * -(-num_rows // settings.batch_size)
    return [
        f"the last of {settings.epochs} epochs was the best so far ({steps:,} steps in all), so training "
        f"ended too early: raise epochs, or lower batch_size from {settings.batch_size}"
    ]


def _worse_than_constant(examples: Examples, valid: Mapping[str, TaskMetrics]) -> list[str]:
    """Warn of scores that say less of a row than the training rows' share of positives does."""
    lines = []
    for t, (task, found) in enumerate(valid.items()):
        rate = float(examples.label_nT[examples.rows["train"], t].mean())
        label_n = examples.label_nT[examples.rows["valid"], t]
        constant = float(log_loss(label_n, np.full(len(label_n), rate), labels=[0, 1]))
        if found.log_loss > constant:
            lines.append(
                f"scores of {task} are worse probabilities than one number for all rows ({rate:.3g}, the "
                f"training rows' share of positives): log loss {found.log_loss:.4f} on validation rows, not "
                f"{constant:.4f}; if AUC says that rows are told apart, set calibration=isotonic, else train "
                "longer or choose another learning_rate"
            )
    return lines
