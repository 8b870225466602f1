"""Train what a trial says: networks and yardsticks (trees, popularity) leave the same.

Legend: N rows, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rankd_training.examples.examples import Examples
from rankd_training.measures.metrics import TaskMetrics, evaluate
from rankd_training.models import registry
from rankd_training.progress import Progress
from rankd_training.recipes import ctr, optinter
from rankd_training.runs.finished import Run, score_rows
from rankd_training.trials.trial import Source, Trial
from rankd_training.yardsticks import registry as yardsticks

__all__ = ["Fitted", "fit"]

RUN = "run"


@dataclass(frozen=True, slots=True)
class Fitted:
    """What training leaves, whoever trains: metrics by split and task, and scores of the splits judged.

    Parameters and the best epoch are None for a yardstick.
    """

    metrics: Mapping[str, Mapping[str, TaskMetrics]]
    scores: Mapping[str, npt.NDArray[np.float32]]
    parameters: int | None = None
    best_epoch: int | None = None
    warnings: tuple[str, ...] = ()


def fit(trial: Trial, source: Source, folder: Path, progress: Progress) -> Fitted:
    """Train a network, its run in `folder`, or fit a yardstick. Raises TrainingError, SchemaError."""
    if trial.model in registry.names():
        return _fit_network(trial, source, folder, progress)
    return _fit_yardstick(trial, source)


def _fit_network(trial: Trial, source: Source, folder: Path, progress: Progress) -> Fitted:
    told = trial.told(source, folder / RUN)
    if optinter.searches(told):  # as `rankd train` does
        _, result = optinter.search_and_train(told, progress=progress)
    else:
        result = ctr.train(told, progress=progress)
    run = Run.load(result.folder)
    examples = source.load()
    return Fitted(
        {split: result.metrics[split] for split in source.splits},
        {split: score_rows(run.model, examples, examples.rows[split]) for split in _judged(source)},
        result.record.parameters,
        result.record.best_epoch,
        result.record.warnings,
    )


def _fit_yardstick(trial: Trial, source: Source) -> Fitted:
    examples = source.load()
    fitted = yardsticks.fit(trial.model, examples, seed=trial.seed, settings=trial.settings)
    scores = {split: fitted.predict(split) for split in source.splits}
    metrics = {split: _metrics(examples, split, score_NT) for split, score_NT in scores.items()}
    return Fitted(metrics, {split: scores[split] for split in _judged(source)})


def _judged(source: Source) -> list[str]:
    """Return the splits whose scores are kept: training rows would be most of the bytes."""
    return [split for split in source.splits if split != "train"]


def _metrics(examples: Examples, split: str, score_NT: npt.NDArray[np.float32]) -> dict[str, TaskMetrics]:
    rows = examples.rows[split]
    return {
        task.name: evaluate(examples.label_nT[rows, t], score_NT[:, t], examples.group_n[rows])
        for t, task in enumerate(examples.schema.tasks)
    }
