"""What a finished run says against itself: its data, its length, its scores; `compare` and pages hand it on.

Legend: n rows, N validation rows, T tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rankd_training.examples.column_check import silent_columns
from rankd_training.examples.examples import Examples
from rankd_training.measures.metrics import Ranking
from rankd_training.runs.seen_rows import SeenRows, Share
from rankd_training.runs.telling_field import most_telling
from rankd_training.settings import TrainSettings

__all__ = ["NO_DOUBTS", "Doubts", "doubts_of"]

_LEAST_TOLD = 3  # epochs: fewer are a try
_MANY = 0.5  # of a split's rows
_TOO_GOOD, _ENOUGH = 0.999, 100  # AUC, and of how many rows of each label
_OFF, _SURE = 0.25, 4.0  # of the rate; standard errors
_WORSE = 2.0  # standard errors


@dataclass(frozen=True, slots=True)
class Doubts:
    """Warnings, a line each, and by split the share of its rows that are alike to a training row."""

    warnings: tuple[str, ...]
    seen: Mapping[str, float | None]


NO_DOUBTS = Doubts((), {})


def doubts_of(
    settings: TrainSettings,
    examples: Examples,
    score_NT: npt.NDArray[np.float32],
    trained_on: SeenRows,
    best_epoch: int,
) -> Doubts:
    """Look for what is doubtful about a run.

    Args:
        settings: of the run.
        examples: all its rows.
        score_NT: of the validation rows, as they leave the model.
        trained_on: the training rows.
        best_epoch: from 1.
    """
    seen = {
        split: trained_on.share(examples, rows) for split, rows in examples.rows.items() if split != "train"
    }
    label_NT = examples.label_nT[examples.rows["valid"]]
    auc_T = [Ranking(label_N, score_N).auc() for label_N, score_N in zip(label_NT.T, score_NT.T, strict=True)]
    warnings = (
        *silent_columns(examples),
        *_repeated(examples, seen),
        *_too_good(examples, auc_T),
        *_by_chance(examples, auc_T),
        *_too_short(settings, best_epoch, len(examples.rows["train"])),
        *(() if settings.calibration != "none" else _no_probabilities(examples, score_NT)),
    )
    return Doubts(warnings, {split: None if share is None else share.value for split, share in seen.items()})


def _repeated(examples: Examples, seen: Mapping[str, Share | None]) -> Iterator[str]:
    """Warn of parts that hold each other's rows: a file that is there twice, or rows that say too little."""
    valid = SeenRows.of(examples, examples.rows["valid"])
    shares = {f"{split} rows are alike to a training row": share for split, share in seen.items()}
    shares["test rows are alike to a validation row"] = valid.share(examples, examples.rows["test"])
    for what, share in shares.items():
        if share is not None and share.value >= _MANY:
            yield (
                f"{share.value:.0%} of the {what} in all fields and labels; if these are copies (a file "
                "twice, a join that repeats rows), metrics of that part say too much: drop them"
            )


def _too_good(examples: Examples, auc_T: Sequence[float | None]) -> Iterator[str]:
    """Warn of a task that is told, most likely by what became known with its label; names the field."""
    label_NT = examples.label_nT[examples.rows["valid"]]
    for t, task in enumerate(examples.schema.tasks):
        auc = auc_T[t]
        if auc is None:
            continue
        field, of_field = most_telling(examples, t)
        positives = int(label_NT[:, t].sum())
        if of_field >= _TOO_GOOD:
            what = f"field '{field}' alone ranks validation rows of {task.name} with an AUC of {of_field:.4f}"
        elif auc >= _TOO_GOOD and min(positives, len(label_NT) - positives) >= _ENOUGH:
            what = f"validation AUC of {task.name} is {auc:.4f}"
        else:
            continue
        yield f"{what}, which is too good to be true: is it known before the event, when the model is asked?"


def _by_chance(examples: Examples, auc_T: Sequence[float | None]) -> Iterator[str]:
    """Warn of a task whose rows are ranked no better than by chance."""
    label_NT = examples.label_nT[examples.rows["valid"]]
    for t, task in enumerate(examples.schema.tasks):
        auc, positives = auc_T[t], label_NT[:, t].sum()
        if auc is None:
            continue
        negatives = len(label_NT) - positives
        chance = math.sqrt((len(label_NT) + 1) / (12 * positives * negatives))  # of Mann-Whitney's U
        if auc < 0.5 + _WORSE * chance:
            yield (
                f"validation rows of {task.name} are ranked no better than by chance (AUC {auc:.4f}, "
                f"{positives:,.0f} positives): hide more ids (unknown_rates), leave fields of ids out, try "
                "stop_on=auc or another learning_rate, or compare with lr and trees"
            )


def _too_short(settings: TrainSettings, best_epoch: int, num_rows: int) -> Iterator[str]:
    """Warn of a run that was better after its last epoch than ever before."""
    if best_epoch < settings.epochs or settings.epochs < _LEAST_TOLD:
        return
    steps = settings.epochs * -(-num_rows // settings.batch_size)
    yield (
        f"the last of {settings.epochs} epochs was the best so far ({steps:,} steps in all), so training "
        f"ended too early: raise epochs, or lower batch_size from {settings.batch_size}"
    )


def _no_probabilities(examples: Examples, score_NT: npt.NDArray[np.float32]) -> Iterator[str]:
    """Warn of scores that say less of a row than one number does, or that are too high or low as a whole."""
    label_NT = examples.label_nT[examples.rows["valid"]].astype(np.float64)
    for t, task in enumerate(examples.schema.tasks):
        label_N, score_N = label_NT[:, t], score_NT[:, t].astype(np.float64)
        known = examples.positives("train")[t] / len(examples.rows["train"])
        loss_N, constant_N = _log_losses(label_N, score_N), _log_losses(label_N, np.full_like(score_N, known))
        worse_N = loss_N - constant_N
        chance = _WORSE * worse_N.std() / math.sqrt(len(worse_N))
        if worse_N.mean() > chance:
            yield (
                f"scores of {task.name} are worse probabilities than one number for all rows ({known:.3g}, "
                f"the training rows' share of positives): log loss {loss_N.mean():.4f} on validation rows, "
                f"not {constant_N.mean():.4f}; if AUC says that rows are told apart, set "
                "calibration=isotonic, else train longer or choose another learning_rate"
            )
        elif _is_off(score_N.mean(), label_N.mean(), len(label_N)):
            yield (
                f"scores of {task.name} are off as a whole: their mean on validation rows is "
                f"{score_N.mean():.3g}, the share of positives {label_N.mean():.3g}; where they are used as "
                "probabilities, set calibration=platt or isotonic"
            )


def _is_off(mean: float, rate: float, num_rows: int) -> bool:
    """Whether the mean score is a quarter off, and that is no chance of so many rows."""
    chance = _SURE * math.sqrt(rate * (1 - rate) / num_rows)
    return 0 < rate < 1 and abs(mean - rate) > max(chance, _OFF * rate)


def _log_losses(
    label_N: npt.NDArray[np.float64], score_N: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    tiny = np.finfo(np.float64).eps
    of_label_N = np.where(label_N > 0, score_N, 1 - score_N)
    losses: npt.NDArray[np.float64] = -np.log(of_label_N.clip(tiny, 1))
    return losses
