"""One model trained once, with given settings and seed on given rows, kept under a key and found again.

The key is a digest of all that decides the result: model, settings, seed, both files, versions. A trial's
folder is complete when it has its `trial.json`, which is written last; anything else there is begun anew.
Networks and yardsticks (trees, popularity) leave the same: metrics by split and task, and scores.

Legend: N rows, T tasks.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from rankd_contract.schema_file import load_schema
from rankd_training.config import read_config
from rankd_training.data.prepared import sha256_of
from rankd_training.errors import RunError, SettingError, UnknownModel
from rankd_training.examples.examples import Examples
from rankd_training.examples.reading import DEALING, digest, examples_for
from rankd_training.measures.metrics import TaskMetrics, evaluate
from rankd_training.models import registry
from rankd_training.progress import SILENT, Progress
from rankd_training.recipes import ctr, optinter
from rankd_training.runs.finished import Run, score_rows
from rankd_training.runs.held import held
from rankd_training.settings import TrainSettings
from rankd_training.yardsticks import registry as yardsticks

__all__ = ["FORMAT", "Source", "Trial", "TrialResult", "TrialStore", "all_names", "check_names"]

FORMAT = "rankd-trial/3"  # goes up whenever the same settings would be trained otherwise
TRIAL, SCORES, RUN = "trial.json", "scores.safetensors", "run"
VERSIONS = ("torch", "numpy", "scikit-learn", "rankd")


@dataclass(frozen=True, slots=True)
class Source:
    """What trials learn from and are judged on.

    Attributes:
        examples: Parquet file.
        schema: its schema file.
        reading: settings that decide how rows are read, such as group_column.
        splits: those that trials may be judged on.
    """

    examples: Path
    schema: Path
    reading: Mapping[str, Any] = field(default_factory=dict)
    splits: tuple[str, ...] = ("train", "valid", "test")

    def load(self) -> Examples:
        """Read and encode the rows. Raises ExamplesError or SchemaError."""
        return examples_for(self.examples, load_schema(self.schema), self.reading)

    def digests(self) -> dict[str, str]:
        """SHA-256 of both files."""
        return {"examples": digest(self.examples), "schema": sha256_of(self.schema)}


@dataclass(frozen=True, slots=True)
class Trial:
    """What is trained: settings are keyword arguments of `TrainSettings`, or those of a yardstick."""

    model: str
    settings: Mapping[str, Any]
    seed: int

    def key(self, source: Source, digests: Mapping[str, str]) -> str:
        """Name this trial's folder: 20 hex digits."""
        rows = {"digests": dict(digests), "splits": source.splits, "reading": dict(source.reading)}
        return _digest({"format": FORMAT, **asdict(self), **rows, "versions": versions()})[:20]

    def check(self, source: Source) -> None:
        """Raise SettingError where settings are unknown or of the wrong type, before any work."""
        for name in (*DEALING, "group_column"):
            if name in self.settings:
                raise SettingError(
                    f"{self.model}: {name} decides which rows there are; give it for all models"
                )
        if self.model in registry.names():
            told = self.told(source, Path())
            read_config(registry.config_type(self.model), told.model_config)
        else:
            read_config(yardsticks.config_type(self.model), self.settings)

    def told(self, source: Source, output: Path) -> TrainSettings:
        """What a network's recipe is told."""
        places = {"examples": source.examples, "schema": source.schema, "output": output}
        named = {"model": self.model, "seed": self.seed}
        told = {**self.settings, **source.reading, **places, **named}
        return read_config(TrainSettings, told, elsewhere=registry.setting_names(self.model))


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What came of it.

    Attributes:
        trial: what was trained.
        folder: where it lies; networks have their run's folder in it.
        parameters: weights; None for a yardstick.
        best_epoch: None for a yardstick.
        duration_s: wall time of reading, training and scoring.
        metrics: by split and task.
        warnings: what the run says of itself, such as that its training ended too early.
    """

    trial: Trial
    folder: Path
    parameters: int | None
    best_epoch: int | None
    duration_s: float
    metrics: Mapping[str, Mapping[str, TaskMetrics]]
    warnings: tuple[str, ...] = ()

    def scores(self) -> dict[str, npt.NDArray[np.float32]]:
        """Probabilities by split, valid and test where the source has it -> [N, T]."""
        return dict(load_file(self.folder / SCORES))

    def mean(self, split: str, measure: str) -> float:
        """Return a measure's mean over tasks; a task without it counts 0."""
        return float(np.mean([getattr(found, measure) or 0.0 for found in self.metrics[split].values()]))


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
        fit = _fit_network if trial.model in registry.names() else _fit_yardstick
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
                seen.add(_digest(tree["settings"]))
        return len(seen)

    def _folder(self, trial: Trial) -> Path:
        return self.root / f"{trial.model}-{trial.seed}-{trial.key(self.source, self.digests)}"


def all_names() -> list[str]:
    """Every model and every yardstick."""
    return [*registry.names(), *yardsticks.names()]


def check_names(names: list[str]) -> None:
    """Raise UnknownModel for the first name that is neither a model nor a yardstick."""
    for name in names:
        if name not in all_names():
            raise UnknownModel(name, all_names())


def versions() -> dict[str, str]:
    """Return what results may depend on besides settings."""
    return {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}}


@dataclass(frozen=True, slots=True)
class _Fitted:
    metrics: Mapping[str, Mapping[str, TaskMetrics]]
    scores: Mapping[str, npt.NDArray[np.float32]]
    parameters: int | None = None
    best_epoch: int | None = None
    warnings: tuple[str, ...] = ()


def _fit_network(trial: Trial, source: Source, folder: Path, progress: Progress) -> _Fitted:
    told = trial.told(source, folder / RUN)
    if optinter.searches(told):  # as `rankd train` does
        _, result = optinter.search_and_train(told, progress=progress)
    else:
        result = ctr.train(told, progress=progress)
    run = Run.load(result.folder)
    examples = source.load()
    return _Fitted(
        {split: result.metrics[split] for split in source.splits},
        {split: score_rows(run.model, examples, examples.rows[split]) for split in _judged(source)},
        result.record.parameters,
        result.record.best_epoch,
        result.record.warnings,
    )


def _fit_yardstick(trial: Trial, source: Source, _: Path, __: Progress) -> _Fitted:
    examples = source.load()
    fitted = yardsticks.fit(trial.model, examples, seed=trial.seed, settings=trial.settings)
    scores = {split: fitted.predict(split) for split in source.splits}
    metrics = {split: _metrics(examples, split, score_NT) for split, score_NT in scores.items()}
    return _Fitted(metrics, {split: scores[split] for split in _judged(source)})


def _judged(source: Source) -> list[str]:
    """Return the splits whose scores are kept: training rows would be most of the bytes."""
    return [split for split in source.splits if split != "train"]


def _metrics(examples: Examples, split: str, score_NT: npt.NDArray[np.float32]) -> dict[str, TaskMetrics]:
    rows = examples.rows[split]
    return {
        task.name: evaluate(examples.label_nT[rows, t], score_NT[:, t], examples.group_n[rows])
        for t, task in enumerate(examples.schema.tasks)
    }


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


def _digest(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
