"""Several models with several seeds on one set of examples: who is better, and is it more than chance?

Two kinds of chance are told apart. Seeds: a paired t-test over the runs' test AUCs, adjusted for the number
of comparisons (Holm). Rows: a paired bootstrap of the difference over the test part's users. Settings come
from outside and were chosen, if at all, on validation rows; test rows are only reported.

Legend: N rows, T tasks.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from rankd_training.examples.examples import Examples
from rankd_training.measures.intervals import RESAMPLES, resampled_aucs, user_auc_difference
from rankd_training.progress import SILENT, Progress
from rankd_training.trials.trial import Trial, TrialResult
from rankd_training.trials.trial_store import TrialStore

__all__ = ["MEASURES", "Contestant", "SeedTest", "compare", "holm", "paired_t"]

MEASURES = {
    "auc": "AUC",
    "user_auc": "AUC per user",
    "log_loss": "log loss",
    "calibration_error": "ECE",
}
FEWEST_SEEDS = 2


@dataclass(frozen=True, slots=True)
class Contestant:
    """A model with its settings and where they come from, such as "preset" or a file's name."""

    model: str
    settings: Mapping[str, Any]
    origin: str


@dataclass(frozen=True, slots=True)
class SeedTest:
    """Paired t-test of a difference over seeds; no p where all differences are equal or there is one seed."""

    mean: float
    std: float
    p: float | None


def compare(
    contestants: Sequence[Contestant],
    seeds: Sequence[int],
    store: TrialStore,
    *,
    again: bool = False,
    resamples: int = RESAMPLES,
    begun: Callable[[Trial], None] = lambda _: None,
    ended: Callable[[TrialResult], None] = lambda _: None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Train what is not in the store yet, and put the results together.

    Args:
        contestants: the first is what the others are compared with.
        seeds: each model is trained with each of these.
        store: where finished trials are kept; its source has the rows.
        again: train even what is there.
        resamples: draws of users for each interval.
        begun: told each trial before it is trained or found.
        ended: told what came of it.
        progress: hears the training of networks.

    Returns:
        What the JSON file says, but for when, where and by which command.

    Raises:
        TrainingError: settings or examples are wrong, or a training failed.
    """
    results: dict[str, list[TrialResult]] = {one.model: [] for one in contestants}
    # Seed by seed, so that a run that is stopped leaves something to compare.
    trials = [Trial(one.model, one.settings, seed) for seed in seeds for one in contestants]
    for trial in trials:
        trial.check(store.source)
    for trial in trials:
        begun(trial)
        result = store.run(trial, progress=progress, again=again)
        ended(result)
        results[trial.model].append(result)
    examples = store.source.load()
    return {
        "examples_sha256": store.digests["examples"],
        "rows": {split: len(rows) for split, rows in examples.rows.items()},
        "base_rate": {
            split: {
                task.name: float(examples.label_nT[rows, t].mean())
                for t, task in enumerate(examples.schema.tasks)
            }
            for split, rows in examples.rows.items()
        },
        "seeds": list(seeds),
        "models": {one.model: _summary(one, results[one.model], store) for one in contestants},
        "resamples": resamples,
        "differences": _differences(examples, results, resamples),
    }


def paired_t(ours: Sequence[float], theirs: Sequence[float]) -> SeedTest:
    """Compare two models seed by seed."""
    gaps = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    if len(gaps) < FEWEST_SEEDS:
        return SeedTest(float(gaps.mean()), 0.0, None)
    spread = float(gaps.std(ddof=1))
    # Equal differences up to rounding, as of two models that ignore the seed, are no sample.
    p = float(stats.ttest_1samp(gaps, 0.0).pvalue) if spread > 1e-12 else None  # noqa: PLR2004
    return SeedTest(float(gaps.mean()), spread, p)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values for their number (Holm 1979); those that are None stay None and do not count."""
    ranked = sorted((p, k) for k, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, k) in enumerate(ranked):
        highest = max(highest, min(1.0, p * (len(ranked) - rank)))
        adjusted[k] = highest
    return adjusted


def _summary(one: Contestant, runs: Sequence[TrialResult], store: TrialStore) -> dict[str, Any]:
    splits = list(runs[0].metrics)
    return {
        "settings": dict(one.settings),
        "settings_from": one.origin,
        "settings_judged_on_test": store.settings_judged(one.model),
        "parameters": runs[0].parameters,
        "best_epochs": [run.best_epoch for run in runs],
        "training_s": [round(run.duration_s, 1) for run in runs],
        "warnings": _warnings(runs),
        "metrics": {
            split: {
                task: {measure: _spread(runs, split, task, measure) for measure in MEASURES}
                for task in runs[0].metrics[split]
            }
            for split in splits
        },
    }


def _warnings(runs: Sequence[TrialResult]) -> dict[str, list[int]]:
    """What runs say of themselves -> the seeds of those that do."""
    seeds: dict[str, list[int]] = {}
    for run in runs:
        for warning in run.warnings:
            seeds.setdefault(warning, []).append(run.trial.seed)
    return seeds


def _spread(runs: Sequence[TrialResult], split: str, task: str, measure: str) -> dict[str, Any]:
    values = [getattr(run.metrics[split][task], measure) for run in runs]
    known = [value for value in values if value is not None]
    return {
        "mean": statistics.mean(known) if known else None,
        "std": statistics.stdev(known) if len(known) >= FEWEST_SEEDS else 0.0,
        "values": values,
    }


def _differences(
    examples: Examples,
    results: Mapping[str, Sequence[TrialResult]],
    resamples: int,
) -> list[dict[str, Any]]:
    """Test AUC of the first model minus each other's."""
    first, *others = results
    rows = examples.rows["test"]
    label_NT, user_N = examples.label_nT[rows], examples.group_n[rows]
    scores = {model: [run.scores()["test"] for run in runs] for model, runs in results.items()}
    entries = []
    for t, task in enumerate(examples.schema.tasks):
        aucs = {m: [run.metrics["test"][task.name].auc or 0.0 for run in runs] for m, runs in results.items()}
        tests = [paired_t(aucs[first], aucs[other]) for other in others]
        runs = {m: [score_NT[:, t] for score_NT in scores[m]] for m in results}
        means = {m: [np.mean(of_runs, axis=0)] for m, of_runs in runs.items()}
        found = resampled_aucs(label_NT[:, t], [*runs.values(), *means.values()], user_N, resamples=resamples)
        # By model: the mean of the runs' AUCs, and the AUC of their mean prediction.
        pairs = dict(zip(runs, zip(found, found[len(runs) :], strict=False), strict=True)) if found else {}
        for other, test, p_holm in zip(others, tests, holm([test.p for test in tests]), strict=True):
            within = user_auc_difference(
                label_NT[:, t], runs[first], runs[other], user_N, resamples=resamples
            )
            apart = [a.minus(b) for a, b in zip(pairs[first], pairs[other], strict=True)] if pairs else []
            entries.append(
                {
                    "task": task.name,
                    "models": [first, other],
                    "seeds": {**asdict(test), "p_holm": p_holm},
                    "auc": asdict(apart[0]) if apart else None,
                    "user_auc": asdict(within) if within else None,
                    "ensemble_auc": asdict(apart[1]) if apart else None,
                }
            )
    return entries
