"""How a model's quality grows with its size: one setting at a time, several seeds, and the law that fits.

Judged on validation rows alone; trials read a file without test rows. Quality is log loss and 1 - AUC, mean
over tasks, both the smaller the better, each fitted by a + b x^-c in the setting's value x.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rankd_training.errors import SettingError
from rankd_training.progress import SILENT, Progress
from rankd_training.settings_file import flat, nested
from rankd_training.trials.power_law import FEWEST_SIZES, fit_runs
from rankd_training.trials.trial import Trial, TrialResult
from rankd_training.trials.trial_store import TrialStore

__all__ = ["DEFAULT_AXES", "QUALITIES", "Axis", "parse_axis", "scale"]

QUALITIES = {"log_loss": "log loss", "auc_error": "1 − AUC"}


@dataclass(frozen=True, slots=True)
class Axis:
    """A setting and the values that it takes, `model.` keys as they are."""

    setting: str
    values: tuple[int, ...]


DEFAULT_AXES = {
    "mlcc": (
        Axis("model.channels", (1, 2, 3, 4)),
        Axis("model.heads", (1, 2, 4, 8)),
        Axis("model.embedding_width", (2, 4, 8, 16, 32)),
    )
}


def parse_axis(text: str) -> Axis:
    """Read `model.heads=1,2,4,8`. Raises SettingError where it is something else."""
    setting, _, listed = text.partition("=")
    try:
        values = tuple(int(part) for part in listed.split(","))
    except ValueError:
        values = ()
    if not setting or len(set(values)) < FEWEST_SIZES or min(values) < 1 or len(set(values)) < len(values):
        raise SettingError(
            f"{text}: expected a setting and four whole numbers above 0 or more, such as model.heads=1,2,4,8"
        )
    return Axis(setting, tuple(sorted(values)))


def scale(
    model: str,
    base: Mapping[str, Any],
    axes: Sequence[Axis],
    seeds: Sequence[int],
    store: TrialStore,
    *,
    begun: Callable[[Trial], None] = lambda _: None,
    ended: Callable[[TrialResult], None] = lambda _: None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Train every value of every axis with every seed, and fit the laws.

    Args:
        model: whose settings they are.
        base: settings of every run but for the one that is varied.
        axes: what is varied.
        seeds: one run each.
        store: where finished trials are kept; its source has no test rows.
        begun: told each trial before it is trained or found.
        ended: told what came of it.
        progress: hears the training of networks.

    Returns:
        What the JSON file says, but for when, where and by which command.

    Raises:
        TrainingError: settings or examples are wrong, or a training failed.
    """
    plan = {(axis.setting, value): _settings(base, axis, value) for axis in axes for value in axis.values}
    trials = {point: [Trial(model, settings, seed) for seed in seeds] for point, settings in plan.items()}
    for runs in trials.values():
        runs[0].check(store.source)
    results: dict[tuple[str, int], list[TrialResult]] = {point: [] for point in trials}
    for k in range(len(seeds)):
        for point, runs in trials.items():
            begun(runs[k])
            found = store.run(runs[k], progress=progress)
            ended(found)
            results[point].append(found)
    return {
        "examples_sha256": store.digests["examples"],
        "model": model,
        "base": dict(base),
        "seeds": list(seeds),
        "axes": {axis.setting: _axis(axis, results) for axis in axes},
    }


def _settings(base: Mapping[str, Any], axis: Axis, value: int) -> dict[str, Any]:
    return nested({**flat(base), axis.setting: value})


def _axis(axis: Axis, results: Mapping[tuple[str, int], Sequence[TrialResult]]) -> dict[str, Any]:
    runs = [results[axis.setting, value] for value in axis.values]
    measured = {
        "log_loss": np.array([[run.mean("valid", "log_loss") for run in row] for row in runs]),
        "auc_error": np.array([[1 - run.mean("valid", "auc") for run in row] for row in runs]),
    }
    x_V = np.array(axis.values, np.float64)
    return {
        "values": list(axis.values),
        "parameters": [row[0].parameters for row in runs],
        "duration_s": [[run.duration_s for run in row] for row in runs],
        "runs": {name: y_VM.tolist() for name, y_VM in measured.items()},
        "fits": {name: asdict(fit_runs(x_V, y_VM)) for name, y_VM in measured.items()},
    }
