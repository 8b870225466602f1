"""Search for settings with Optuna, by validation rows alone: trials train on a file without test rows.

Tree-structured Parzen estimator; a network whose validation AUC falls behind the median of the others at the
same epoch is given up. A study is kept in a journal and goes on where it was. The first trial is the settings
at hand, as far as they lie in the space.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from rankd_training.errors import Diverged, SettingError, TrainingError
from rankd_training.models import registry
from rankd_training.progress import SILENT, Progress
from rankd_training.runs.held import held
from rankd_training.settings import TrainSettings
from rankd_training.settings_file import PREFIX, flat, nested
from rankd_training.trials.search_space import SearchSpace
from rankd_training.trials.trial import FORMAT, Source, Trial
from rankd_training.trials.trial_store import TrialStore
from rankd_training.trials.withheld import without_test

__all__ = ["Measure", "Study", "Tried"]

Measure = Literal["auc", "user_auc", "log_loss"]
JOURNAL = "journal.log"
STUDY = "study"
DIVERGED = "diverged"
STARTUP_TRIALS = 10


@dataclass(frozen=True, slots=True)
class Tried:
    """One finished trial.

    Attributes:
        number: from 0.
        state: done, given up, or diverged.
        value: mean over tasks and seeds on validation rows; None unless done.
        values: of the dimensions searched, `model.` keys as they are.
    """

    number: int
    state: Literal["done", "given up", "diverged"]
    value: float | None
    values: Mapping[str, Any]


class Study:
    """A search that is kept below a folder.

    Args:
        folder: below which studies are kept.
        name: for people; the folder's name begins with it.
        source: the rows; test rows are left out.
        model: a model or a yardstick.
        space: where to look.
        base: settings of every trial that the space does not name.
        measure: of validation rows; AUCs are made large, log loss small.
        seeds: each trial is trained once a seed and judged by the mean.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        source: Source,
        *,
        model: str,
        space: SearchSpace,
        base: Mapping[str, Any],
        measure: Measure = "auc",
        seeds: Sequence[int] = (1,),
    ) -> None:
        self._source, self._model, self._space = source, model, space
        self._base, self._measure, self._seeds = flat(base), measure, tuple(seeds)
        asked = [FORMAT, space.canonical(), self._base, model, measure, self._seeds, source.digests()]
        key = hashlib.sha256(json.dumps([*asked, dict(source.reading)], sort_keys=True).encode()).hexdigest()
        self.folder = folder / f"{name}-{model}-{key[:12]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # a trial that fails is told by its error
        backend = JournalFileBackend(str(self.folder / JOURNAL))
        self._study = optuna.create_study(
            storage=JournalStorage(backend),
            study_name=STUDY,
            direction="minimize" if measure == "log_loss" else "maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=1),
            load_if_exists=True,
        )

    def tried(self) -> list[Tried]:
        """Every finished trial; those that were stopped from outside are not among them."""
        return [found for trial in self._study.get_trials(deepcopy=False) if (found := self._tried(trial))]

    def best(self) -> Tried:
        """Return the best trial. Raises TrainingError where none is done."""
        number = self.best_number()
        if number is None:
            raise TrainingError(
                "no trial ended with a value: every one diverged; lower learning_rate's range"
            )
        return next(trial for trial in self.tried() if trial.number == number)

    def best_number(self) -> int | None:
        """Return the number of the best trial so far; None while none has ended with a value."""
        sign = 1 if self._measure == "log_loss" else -1
        done = [(sign * t.value, t.number) for t in self.tried() if t.value is not None]
        return min(done)[1] if done else None

    def settings(self, tried: Tried) -> dict[str, Any]:
        """Return all settings of a trial, as `TrainSettings` takes them."""
        return nested({**self._base, **self._space.fixed, **tried.values})

    def run(
        self,
        trials: int,
        *,
        begun: Callable[[int, Mapping[str, Any]], None] = lambda *_: None,
        ended: Callable[[Tried], None] = lambda _: None,
        progress: Progress = SILENT,
    ) -> None:
        """Go on until `trials` are finished in all.

        Args:
            trials: counted over all runs of this study.
            begun: told number and values of each trial.
            ended: told what came of it.
            progress: hears the training of networks.

        Raises:
            SettingError: a model refuses values of the space; names them.
            TrainingError: the examples cannot be trained on, or another process is at this study.
        """
        with held(self.folder / ".lock", "this study"):
            self._run(trials, begun, ended, progress)

    def _run(
        self,
        trials: int,
        begun: Callable[[int, Mapping[str, Any]], None],
        ended: Callable[[Tried], None],
        progress: Progress,
    ) -> None:
        missing = trials - len(self.tried())
        if missing <= 0:
            return
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)  # of a process that was killed
        if not self._study.get_trials(deepcopy=False):
            self._study.enqueue_trial(self._at_hand())
        # A sampler that began anew with one seed would propose again what it proposed before.
        self._study.sampler = TPESampler(seed=len(self.tried()), n_startup_trials=STARTUP_TRIALS)
        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            store = TrialStore(work, without_test(self._source, work / "examples.parquet"))

            def judge(trial: optuna.Trial) -> float:
                values = self._space.suggest(trial)
                begun(trial.number, values)
                return self._judge(trial, values, store, progress)

            def report(_: optuna.Study, trial: FrozenTrial) -> None:
                found = self._tried(trial)
                if found:
                    ended(found)

            self._study.optimize(judge, n_trials=missing, callbacks=[report], catch=(Diverged,))
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _judge(
        self, trial: optuna.Trial, values: Mapping[str, Any], store: TrialStore, progress: Progress
    ) -> float:
        settings = nested({**self._base, **values})
        found: list[float] = []
        for seed in self._seeds:
            # Only the first seed's epochs are comparable between trials.
            hears = _Pruning(trial, progress) if self._measure == "auc" and not found else progress
            try:
                result = store.run(Trial(self._model, settings, seed), progress=hears)
            except SettingError as error:
                raise SettingError(
                    f"trial {trial.number} with {json.dumps(dict(values))}: {error}"
                ) from error
            except Diverged:
                trial.set_user_attr(DIVERGED, True)
                raise
            found.append(result.mean("valid", self._measure))
            shutil.rmtree(result.folder)
        return float(np.mean(found))

    def _at_hand(self) -> dict[str, Any]:
        """Return the present settings that lie in the space."""
        present = dict(self._base)
        if self._model in registry.names():
            for prefix, kind in (("", TrainSettings), (PREFIX, registry.config_type(self._model))):
                for field in fields(kind):
                    present.setdefault(prefix + field.name, field.default)
        encoded = {one.name: one.encode(present.get(one.name)) for one in self._space.dimensions}
        return {name: value for name, value in encoded.items() if value is not None}

    def _tried(self, trial: FrozenTrial) -> Tried | None:
        values = {
            one.name: json.loads(trial.params[one.name]) if one.kind == "choice" else trial.params[one.name]
            for one in self._space.dimensions
            if one.name in trial.params
        }
        if trial.state is TrialState.COMPLETE:
            return Tried(trial.number, "done", trial.value, values)
        if trial.state is TrialState.PRUNED:
            return Tried(trial.number, "given up", None, values)
        if trial.state is TrialState.FAIL and trial.user_attrs.get(DIVERGED):
            return Tried(trial.number, "diverged", None, values)
        return None


class _Pruning:
    """Hears a training, passes it on, and ends it where its epochs fall behind."""

    def __init__(self, trial: optuna.Trial, passed_on: Progress) -> None:
        self._trial, self._passed_on, self._epochs = trial, passed_on, 0

    def rows_read(self, done: int, total: int) -> None:
        """Pass on."""
        self._passed_on.rows_read(done, total)

    def run_started(
        self, *, model: str, parameters: int, stop_on: str, epochs: int, steps_per_epoch: int
    ) -> None:
        """Pass on."""
        self._passed_on.run_started(
            model=model,
            parameters=parameters,
            stop_on=stop_on,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
        )

    def epoch_started(self, epoch: int) -> None:
        """Pass on."""
        self._passed_on.epoch_started(epoch)

    def step(self, step: int, loss: float, rows_per_s: float) -> None:
        """Pass on."""
        self._passed_on.step(step, loss, rows_per_s)

    def epoch_ended(
        self, epoch: int, loss: float, valid_auc: Mapping[str, float], *, score: float, best: bool
    ) -> None:
        """Pass on, then end the trial where the median of the others is better."""
        self._passed_on.epoch_ended(epoch, loss, valid_auc, score=score, best=best)
        self._epochs += 1  # of all its runs: OptInter is trained twice
        self._trial.report(float(np.mean(list(valid_auc.values()))), self._epochs)
        if self._trial.should_prune():
            raise optuna.TrialPruned
