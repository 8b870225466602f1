"""What a finished run says against itself; `compare` and the run's page hand it on."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from sklearn.metrics import log_loss

from rankd_training.examples.column_check import silent_columns
from rankd_training.examples.examples import Examples
from rankd_training.examples.telling_field import most_telling
from rankd_training.measures.metrics import TaskMetrics
from rankd_training.runs.seen_rows import SeenRows
from rankd_training.settings import TrainSettings

__all__ = ["run_warnings"]

_LEAST_TOLD = 3  # epochs: fewer are a try
_MANY = 0.5  # of a split's rows
_TOO_GOOD = 0.999  # AUC
_OFF, _SURE = 0.25, 4.0  # of the rate; standard errors


def run_warnings(
    settings: TrainSettings,
    examples: Examples,
    valid: Mapping[str, TaskMetrics],
    best_epoch: int,
    seen: Mapping[str, float],
) -> tuple[str, ...]:
    """Say what is doubtful about the data, the length of the training and the scores, a line each.

    Args:
        settings: of the run.
        examples: all its rows.
        valid: how good the scores of validation rows are, by task.
        best_epoch: from 1.
        seen: share of each other split's rows that are alike to a training row.
    """
    return (
        *silent_columns(examples),
        *_repeated(examples, seen),
        *_too_good(examples, valid),
        *_too_short(settings, best_epoch, len(examples.rows["train"])),
        *(() if settings.calibration != "none" else _no_probabilities(examples, valid)),
    )


def _repeated(examples: Examples, seen: Mapping[str, float]) -> list[str]:
    """Warn of parts that hold each other's rows: a file that is there twice, or rows that say too little."""
    shares = {f"{split} rows are alike to a training row": share for split, share in seen.items()}
    valid = SeenRows.of(examples, examples.rows["valid"])
    shares["test rows are alike to a validation row"] = valid.share(examples, examples.rows["test"])
    return [
        f"{share:.0%} of the {what} in all fields and labels; if these are copies (a file twice, a join that "
        "repeats rows), metrics of that part say too much: drop them"
        for what, share in shares.items()
        if share >= _MANY
    ]


def _too_good(examples: Examples, valid: Mapping[str, TaskMetrics]) -> list[str]:
    """Warn of a task that is told, most likely by what became known with its label; names the field."""
    lines = []
    for t, (task, found) in enumerate(valid.items()):
        if found.auc is None or found.auc < _TOO_GOOD:
            continue
        field, auc = most_telling(examples, t)
        alone = f"; field '{field}' alone reaches {auc:.3f}" if auc >= _TOO_GOOD else ""
        lines.append(
            f"validation AUC of {task} is {found.auc:.4f}, which is too good to be true{alone}: is each "
            "field known before the event, when the model is asked?"
        )
    return lines


def _too_short(settings: TrainSettings, best_epoch: int, num_rows: int) -> list[str]:
    """Warn of a run that was better after its last epoch than ever before."""
    if best_epoch < settings.epochs or settings.epochs < _LEAST_TOLD:
        return []
    steps = settings.epochs * -(-num_rows // settings.batch_size)
    return [
        f"the last of {settings.epochs} epochs was the best so far ({steps:,} steps in all), so training "
        f"ended too early: raise epochs, or lower batch_size from {settings.batch_size}"
    ]


def _no_probabilities(examples: Examples, valid: Mapping[str, TaskMetrics]) -> list[str]:
    """Warn of scores that say less of a row than one number does, or that are too high or low as a whole."""
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
        elif _is_off(found):
            lines.append(
                f"scores of {task} are off as a whole: their mean on validation rows is "
                f"{found.mean_score:.3g}, the share of positives {found.base_rate:.3g}; where they are used "
                "as probabilities, set calibration=platt or isotonic"
            )
    return lines


def _is_off(found: TaskMetrics) -> bool:
    """Whether the mean score is a quarter off, and that is no chance of so many rows."""
    rate, mean = found.base_rate, found.mean_score
    if mean is None or not 0 < rate < 1:
        return False
    chance = _SURE * math.sqrt(rate * (1 - rate) / found.rows)
    return abs(mean - rate) > max(chance, _OFF * rate)
