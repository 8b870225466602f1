"""One model trained once, with given settings and seed on given rows, and what came of it.

A trial's key is a digest of all that decides the result: model, settings, seed, both files, versions.

Legend: N rows, T tasks.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from rankd_contract.schema_file import load_schema
from rankd_training.config import read_config
from rankd_training.data.prepared import sha256_of
from rankd_training.errors import SettingError, UnknownModel
from rankd_training.examples.examples import Examples
from rankd_training.examples.reading import DEALING, digest, examples_for
from rankd_training.measures.metrics import TaskMetrics
from rankd_training.models import registry
from rankd_training.settings import TrainSettings
from rankd_training.yardsticks import registry as yardsticks

__all__ = [
    "FORMAT",
    "SCORES",
    "Source",
    "Trial",
    "TrialResult",
    "all_names",
    "check_names",
    "digest_of",
    "versions",
]

FORMAT = "rankd-trial/3"  # goes up whenever the same settings would be trained otherwise
SCORES = "scores.safetensors"
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
        return digest_of({"format": FORMAT, **asdict(self), **rows, "versions": versions()})[:20]

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


def digest_of(tree: Any) -> str:
    """Return the SHA-256 of plain values, as 64 hex digits."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
