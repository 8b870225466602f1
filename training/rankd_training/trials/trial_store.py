"""Trials that are done, kept under their keys and found again.

A trial's folder is complete when it has its `trial.json`, which is written last; anything else there is begun
anew.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from rankd_training.errors import RunError
from rankd_training.measures.metrics import TaskMetrics
from rankd_training.progress import SILENT, Progress
from rankd_training.runs.held import held
from rankd_training.trials.fitted import fit
from rankd_training.trials.trial import FORMAT, SCORES, Source, Trial, TrialResult, digest_of, versions

__all__ = ["TrialStore"]

TRIAL = "trial.json"


class TrialStore:
    """Finished trials below one folder."""

    def __init__(self, root: Path, source: Source) -> None:
        """Nothing is read or written yet but the digests of the source's files."""
        self.root, self.source = root, source
        self.digests = source.digests()

    def find(self, trial: Trial) -> TrialResult | None:
        """Return a finished trial, if it is here."""
        folder = self._folder(trial)
        try:
            tree = json.loads((folder / TRIAL).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RunError(folder, f"cannot be read: {error}; remove it and start again") from error
        metrics = {
            split: {task: TaskMetrics(**found) for task, found in by_task.items()}
            for split, by_task in tree["metrics"].items()
        }
        warnings = tuple(tree.get("warnings", ()))
        told = (tree["parameters"], tree["best_epoch"], tree["duration_s"])
        return TrialResult(trial, folder, *told, metrics, warnings)

    def run(self, trial: Trial, *, progress: Progress = SILENT, again: bool = False) -> TrialResult:
        """Return the finished trial, training it where it is not here yet.

        Args:
            trial: what to train.
            progress: hears a network's training.
            again: train even where it is here.

        Raises:
            TrainingError: settings or examples are wrong, or training failed.
            ContractError: the schema file is wrong.
        """
        folder = self._folder(trial)
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.parent / f".{folder.name}.lock"
        with held(lock, "this trial", waits=True):  # and it may be done when it is our turn
            return (None if again else self.find(trial)) or self._train(trial, folder, progress)

    def _train(self, trial: Trial, folder: Path, progress: Progress) -> TrialResult:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        began = perf_counter()
        try:
            fitted = fit(trial, self.source, folder, progress)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        duration_s = perf_counter() - began
        scores = {split: np.ascontiguousarray(score_NT) for split, score_NT in fitted.scores.items()}
        try:
            save_file(scores, folder / SCORES)
        except SafetensorError as error:  # a full disk, most of all
            raise RunError(folder, f"scores cannot be written: {error}") from error
        told = (fitted.parameters, fitted.best_epoch, round(duration_s, 3))
        result = TrialResult(trial, folder, *told, fitted.metrics, fitted.warnings)
        _write_trial(result, self.digests, self.source.splits)
        return result

    def settings_judged(self, model: str) -> int:
        """How many settings of a model have been judged on this file's test rows, as far as is kept here."""
        seen = set()
        for path in self.root.glob(f"*/{TRIAL}"):
            tree = json.loads(path.read_text(encoding="utf-8"))
            if (
                tree["model"] == model
                and tree["digests"]["examples"] == self.digests["examples"]
                and "test" in tree["metrics"]
            ):
                seen.add(digest_of(tree["settings"]))
        return len(seen)

    def _folder(self, trial: Trial) -> Path:
        return self.root / f"{trial.model}-{trial.seed}-{trial.key(self.source, self.digests)}"


def _write_trial(result: TrialResult, digests: Mapping[str, str], splits: tuple[str, ...]) -> None:
    tree = {
        "format": FORMAT,
        **asdict(result.trial),
        "digests": digests,
        "splits": splits,
        "versions": versions(),
        "parameters": result.parameters,
        "best_epoch": result.best_epoch,
        "duration_s": result.duration_s,
        "warnings": result.warnings,
        "metrics": {
            split: {task: asdict(found) for task, found in by_task.items()}
            for split, by_task in result.metrics.items()
        },
    }
    staging = result.folder / f".{TRIAL}"
    staging.write_text(json.dumps(tree, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    staging.replace(result.folder / TRIAL)
