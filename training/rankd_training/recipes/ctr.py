"""Train a model that predicts the probability of one or more actions, and leave a run's folder behind.

Deterministic for given settings on one machine and thread count, killed and resumed in between or not. The
best epoch on validation rows is kept; the test split is looked at once, at the end. Under `torchrun` every
process runs this recipe on its share of each batch.

Legend: n rows, N rows of a batch, T tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from rankd_contract.errors import ContractError
from rankd_contract.schema_file import load_schema
from rankd_training.errors import Diverged, ExamplesError, RunError, SettingError
from rankd_training.examples.batches import Batches
from rankd_training.examples.examples import examples_of
from rankd_training.learning.base_rate import start_at_base_rate
from rankd_training.learning.learner import Learner, all_finite
from rankd_training.learning.losses import Loss
from rankd_training.learning.optimisers import Optimisers
from rankd_training.learning.ranks import Ranks, joined
from rankd_training.learning.schedule import SCHEDULES
from rankd_training.learning.sharding import build_shared, check_sharding, num_parameters, weights_of
from rankd_training.learning.unknowns import UnknownValues
from rankd_training.measures.calibration import Calibrated, fit
from rankd_training.measures.metrics import TaskMetrics, overall
from rankd_training.progress import SILENT, Progress
from rankd_training.recipes.sized import sized
from rankd_training.runs import checkpoint
from rankd_training.runs.doubts import NO_DOUBTS, doubts_of
from rankd_training.runs.run_folder import (
    Attachments,
    RunRecord,
    check_free,
    epoch_record,
    publish,
    record_of,
)
from rankd_training.runs.seen_rows import SeenRows
from rankd_training.runs.spread import hand_over
from rankd_training.runs.unfinished import Course, Unfinished
from rankd_training.settings import TrainSettings

__all__ = ["RunResult", "resume", "train"]


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run: where it lies, how it went, and its metrics by split and task."""

    folder: Path
    record: RunRecord
    metrics: Mapping[str, Mapping[str, TaskMetrics]]


def train(settings: TrainSettings, *, progress: Progress = SILENT) -> RunResult:
    """Train one model.

    Raises:
        SettingError: a setting is unknown or out of range.
        ExamplesError: the examples cannot be trained on.
        RunError: the output folder is in use, or a run to there was not finished.
        Diverged: weights are no longer finite.
        SchemaError: the schema file is wrong (from the contract).
    """
    _check(settings)
    check_free(settings.output)
    with joined() as ranks:
        check_sharding(settings, ranks)
        unfinished = Unfinished(settings.output)
        if ranks.first:
            unfinished.begin(settings)
        return _train(settings, unfinished, ranks, progress if ranks.first else SILENT)


def resume(output: Path, *, progress: Progress = SILENT) -> RunResult:
    """Go on with a run to `output` that was killed; the result is the same as if it had not been.

    Raises:
        RunError: there is no such run, its state cannot be read, or its examples have changed since.
        TrainingError, SchemaError: as `train`.
    """
    with joined() as ranks:
        unfinished = Unfinished(output)
        settings = unfinished.settings()
        _check_processes(unfinished, ranks)
        check_sharding(settings, ranks)  # what cannot be gone on with here is left as it is
        return _train(settings, unfinished, ranks, progress if ranks.first else SILENT)


def _train(settings: TrainSettings, unfinished: Unfinished, ranks: Ranks, progress: Progress) -> RunResult:
    """What fails for a reason of its own leaves nothing behind; what is killed can be resumed."""
    with unfinished.alone() if ranks.first else nullcontext():
        try:
            with _seeded(settings.seed, settings.threads):
                result = _run(settings, unfinished, ranks, progress)
        except (Diverged, SettingError, ExamplesError, ContractError):
            if ranks.first:
                unfinished.remove()
            raise
        if ranks.first:
            unfinished.remove()
        return result


def _run(settings: TrainSettings, unfinished: Unfinished, ranks: Ranks, progress: Progress) -> RunResult:
    schema = load_schema(settings.schema)
    schema_text = settings.schema.read_bytes()
    UnknownValues(schema, settings.unknown_rates or {})  # wrong names are refused before rows are read
    examples = examples_of(settings, schema, progress.rows_read)
    settings = sized(settings, examples)
    unknowns = UnknownValues(schema, settings.unknown_rates or {})
    batches, train_n = Batches(examples), torch.from_numpy(examples.rows["train"])

    model = build_shared(settings, schema, ranks)
    if settings.start_at_base_rate:
        start_at_base_rate(model, examples.positives("train"), len(train_n))
    optimisers, loss_of = Optimisers(model, settings, ranks), Loss(settings, examples, model)
    learner = Learner(model, optimisers, loss_of, unknowns, batches, settings, ranks)
    seen = unknowns.seen(model.embedding, (batch.features for batch in batches.in_turn(train_n)))
    parameters = num_parameters(model)
    if not ranks.first:  # what each process draws for its own share; the order is the first one's
        torch.manual_seed(settings.seed + ranks.index * 1_000_003)

    course, order_n = _start(settings, unfinished, learner)

    progress.run_started(
        model=settings.model,
        parameters=parameters,
        stop_on=settings.stop_on,
        epochs=settings.epochs,
        steps_per_epoch=math.ceil(len(train_n) / settings.batch_size),
    )
    while course.epoch <= settings.epochs and course.epoch - 1 - course.best_epoch < settings.patience:
        progress.epoch_started(course.epoch)
        began = perf_counter()
        if course.step == 0:
            order_n = ranks.same(train_n[torch.randperm(len(train_n))])
        save = partial(_save, learner, unfinished, course, order_n)
        loss = learner.learn(order_n, course, progress, save)
        optimisers.settle()
        if not all_finite(model, ranks):
            raise Diverged(course.epoch, settings.learning_rate)
        valid = _judged(learner, seen)
        assert settings.stop_on != "auto", "settled by the rows"
        score = overall(valid, settings.stop_on)
        best = course.best_score is None or score > course.best_score
        if best:
            course.best_epoch, course.best_score = course.epoch, score
        ended = epoch_record(course.epoch, loss, valid, perf_counter() - began)
        progress.epoch_ended(ended.epoch, loss, ended.valid_auc, score=abs(score), best=best)
        course.end_epoch(ended)
        save(best=best)

    optimisers.release()
    if settings.average_decay or course.best_epoch != len(course.epochs):
        checkpoint.read_into(unfinished.best(), weights_of(model, ranks))
    metrics = {split: learner.judge(split) for split in examples.rows}
    valid_scores, _ = learner.scores("valid")
    trained_on = SeenRows.of(examples, examples.rows["train"][: None if ranks.first else 0])
    record = record_of(
        settings,
        examples,
        tuple(course.epochs),
        doubts_of(settings, examples, valid_scores, trained_on, course.best_epoch)
        if ranks.first
        else NO_DOUBTS,
        best_epoch=course.best_epoch,
        parameters=parameters,
        ran=(course.started_at, datetime.now(UTC).isoformat(timespec="seconds")),
    )
    calibrated = _calibrated(learner) if settings.calibration != "none" else None
    if ranks.first:
        attached = Attachments(schema_text, examples, trained_on, calibrated)
        weights = unfinished.best() if model.embedding.spread else None
        publish(settings.output, model, record, metrics, attached, weights=weights)
    return RunResult(settings.output, record, metrics)


def _check(settings: TrainSettings) -> None:
    for name in ("learning_rate", "threads", "denoise_temperature"):
        if not getattr(settings, name) > 0:
            raise SettingError(f"{name}: expected a number above 0, got {getattr(settings, name)}")
    for name in ("embedding_learning_rate", "gradient_clamp"):
        given = getattr(settings, name)
        if given is not None and not given > 0:
            raise SettingError(f"{name}: expected a number above 0, got {given}")
    if settings.schedule not in SCHEDULES:
        raise SettingError(f"schedule {settings.schedule!r}: expected one of {', '.join(SCHEDULES)}")
    for name in (
        *("epochs", "patience", "batch_size", "checkpoint_steps"),
        *("embedding_decay", "weight_decay", "ranking_weight", "funnel_penalty"),
    ):
        given = getattr(settings, name)
        if given is not None and not 0 <= given < math.inf:
            raise SettingError(f"{name}: expected a number of at least 0, got {given}")


def _check_processes(unfinished: Unfinished, ranks: Ranks) -> None:
    state = unfinished.load()
    if state is not None and len(state.random) != ranks.count:
        raise RunError(
            unfinished.folder,
            f"was begun with {len(state.random)} processes, this is {ranks.count}; use as many",
        )


def _start(settings: TrainSettings, unfinished: Unfinished, learner: Learner) -> tuple[Course, Tensor]:
    """Begin, or go on from the last state -> how far the run is, and the order of an epoch under way."""
    digest, schema = learner.batches.examples.sha256, f"{learner.batches.examples.schema.fingerprint:016x}"
    state = unfinished.load()
    if state is None:
        return Course(datetime.now(UTC).isoformat(timespec="seconds"), digest, schema), torch.empty(0)
    for file, same in (
        (settings.examples, state.course.examples_sha256 == digest),
        (settings.schema, state.course.schema in {"", schema}),  # runs begun before it was kept
    ):
        if not same:
            raise RunError(file, "has changed since the run was begun; remove the run and train again")
    checkpoint.read_into(state.weights, weights_of(learner.model, learner.ranks))
    learner.optimisers.load(state.optimiser)
    torch.set_rng_state(state.random[learner.ranks.index].clone())  # torch wants it aligned
    return state.course, state.order_n


def _save(
    learner: Learner, unfinished: Unfinished, course: Course, order_n: Tensor, *, best: bool = False
) -> None:
    """Keep how far a run is; the first process writes what all hold."""
    ranks, average = learner.ranks, learner.optimisers.average
    random = ranks.join(torch.get_rng_state().unsqueeze(0))
    weights, moments = weights_of(learner.model, ranks), learner.optimisers.state()
    if ranks.first:
        order = order_n if course.step else order_n[:0]
        kept = weights if average is None else average.weights()
        unfinished.save(course, weights, moments, random, order, best=kept if best else None)
    else:
        hand_over(weights, moments)
    ranks.meet()


def _judged(learner: Learner, seen: Tensor) -> Mapping[str, TaskMetrics]:
    """Settle the weights that would be kept, and judge them on validation rows."""
    _agree(learner)
    with learner.optimisers.judged():
        _agree(learner)
        learner.unknowns.settle(learner.model.embedding, seen)
        return learner.judge("valid")


def _agree(learner: Learner) -> None:
    """Running statistics are of each process's own share; all take the first one's."""
    for buffer in learner.model.buffers():
        learner.ranks.same(buffer)


def _calibrated(learner: Learner) -> Calibrated:
    method, examples = learner.settings.calibration, learner.batches.examples
    assert method != "none"
    tasks = tuple(task.name for task in examples.schema.tasks)
    return fit(method, tasks, {split: learner.scores(split) for split in examples.rows})


@contextmanager
def _seeded(seed: int, threads: int) -> Iterator[None]:
    """Draw from `seed` with `threads` threads; the caller's generator and thread count come back."""
    threads_before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads_before)
