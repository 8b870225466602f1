"""Train a model that predicts the probability of one or more actions, and leave a run's folder behind.

Deterministic for given settings on one machine and thread count. The best epoch by validation AUC (mean
over tasks) is kept; the test split is looked at once, at the end.

Legend: n rows, N rows of a batch, T tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rankd_contract.schema_file import load_schema
from rankd_contract.signature import ROW, tensors
from rankd_training.errors import Diverged, SettingError
from rankd_training.examples import Examples, examples_of
from rankd_training.metrics import TaskMetrics, evaluate
from rankd_training.models.registry import RankingModel, build
from rankd_training.progress import SILENT, Progress
from rankd_training.run_folder import EpochRecord, RunRecord, check_free, publish, record_of
from rankd_training.settings import TrainSettings
from rankd_training.unknowns import UnknownValues

__all__ = ["RunResult", "train"]

EVALUATION_ROWS = 8192


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
        RunError: the output folder is in use.
        Diverged: weights are no longer finite.
        SchemaError: the schema file is wrong (from the contract).
    """
    started_at = datetime.now(UTC)
    _check(settings)
    check_free(settings.output)
    schema = load_schema(settings.schema)
    schema_text = settings.schema.read_bytes()
    unknowns = UnknownValues(schema, settings.unknown_rates)
    examples = examples_of(settings, schema)
    rows = _Rows.of(examples)

    with _seeded(settings.seed, settings.threads):
        model = build(settings.model, schema, settings.model_config)
        optimiser = _optimiser(model, settings)
        seen = model.embedding.rows_read(rows.batch(rows.train))
        parameters = sum(p.numel() for p in model.parameters())
        progress.run_started(
            model=settings.model,
            parameters=parameters,
            epochs=settings.epochs,
            steps_per_epoch=math.ceil(len(rows.train) / settings.batch_size),
        )

        epochs: list[EpochRecord] = []
        best_auc, best_epoch, best_weights = -1.0, 0, _copied(model)
        for epoch in range(1, settings.epochs + 1):
            progress.epoch_started(epoch)
            began = perf_counter()
            loss = _learn_once(model, optimiser, unknowns, rows, settings.batch_size, progress)
            if not all(p.isfinite().all() for p in model.parameters()):
                raise Diverged(epoch, settings.learning_rate)
            unknowns.settle(model.embedding, seen)

            valid_auc = {task: found.auc or 0.0 for task, found in _judge(model, rows, "valid").items()}
            mean_auc = float(np.mean(list(valid_auc.values())))
            best = mean_auc > best_auc
            if best:
                best_auc, best_epoch, best_weights = mean_auc, epoch, _copied(model)
            epochs.append(EpochRecord(epoch, loss, valid_auc, perf_counter() - began))
            progress.epoch_ended(epoch, loss, valid_auc, best=best)
            if epoch - best_epoch >= settings.patience:
                break

        model.load_state_dict(best_weights)
        metrics = {split: _judge(model, rows, split) for split in examples.rows}

    record = record_of(
        settings,
        examples,
        tuple(epochs),
        best_epoch=best_epoch,
        parameters=parameters,
        started_at=started_at.isoformat(timespec="seconds"),
        ended_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    publish(settings.output, model, record, metrics, schema_text=schema_text, examples=examples)
    return RunResult(settings.output, record, metrics)


@dataclass(frozen=True, slots=True)
class _Rows:
    """All examples as tensors; every row is its own user row."""

    examples: Examples
    features: Mapping[str, Tensor]
    label_nT: Tensor
    weight_T: Tensor
    train: Tensor

    @classmethod
    def of(cls, examples: Examples) -> _Rows:
        arrays = tensors(examples.blocks, np.arange(len(examples)))
        return cls(
            examples,
            {name: torch.from_numpy(array) for name, array in arrays.items()},
            torch.from_numpy(examples.label_nT),
            torch.tensor([task.weight for task in examples.schema.tasks]),
            torch.from_numpy(examples.rows["train"]),
        )

    def batch(self, chosen_N: Tensor) -> dict[str, Tensor]:
        """Inputs of some rows by name."""
        return {
            name: torch.arange(len(chosen_N)) if name == ROW else whole.index_select(0, chosen_N)
            for name, whole in self.features.items()
        }


def _learn_once(
    model: RankingModel,
    optimiser: torch.optim.Optimizer,
    unknowns: UnknownValues,
    rows: _Rows,
    batch_size: int,
    progress: Progress,
) -> float:
    """One pass over the training rows in a new order -> the mean loss."""
    model.train()
    began, num_done, loss_sum = perf_counter(), 0, 0.0
    shuffled = rows.train[torch.randperm(len(rows.train))]
    for step, chosen_N in enumerate(torch.split(shuffled, batch_size), start=1):
        logit_NT = model(unknowns.hide(rows.batch(chosen_N)))
        loss_NT = functional.binary_cross_entropy_with_logits(
            logit_NT, rows.label_nT[chosen_N], reduction="none"
        )
        loss = (loss_NT.mean(0) * rows.weight_T).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimiser.step()
        num_done += len(chosen_N)
        loss_sum += loss.item() * len(chosen_N)
        progress.step(step, loss.item(), num_done / (perf_counter() - began))
    return loss_sum / num_done


@torch.no_grad()
def _judge(model: RankingModel, rows: _Rows, split: str) -> dict[str, TaskMetrics]:
    model.eval()
    examples = rows.examples
    chosen_n = examples.rows[split]
    batches = torch.split(torch.from_numpy(chosen_n), EVALUATION_ROWS)
    score_nT = torch.cat([torch.sigmoid(model(rows.batch(chosen_N))) for chosen_N in batches]).numpy()
    label_nT, group_n = examples.label_nT[chosen_n], examples.group_n[chosen_n]
    return {
        task.name: evaluate(label_nT[:, t], score_nT[:, t], group_n)
        for t, task in enumerate(examples.schema.tasks)
    }


def _optimiser(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW, which is Adam where a decay is 0."""
    embeddings: list[nn.Parameter] = []
    matrices: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        kind = embeddings if name.startswith("embedding.") else matrices if parameter.dim() > 1 else biases
        kind.append(parameter)
    decays = ((embeddings, settings.embedding_decay), (matrices, settings.weight_decay), (biases, 0.0))
    groups = [{"params": params, "weight_decay": decay} for params, decay in decays if params]
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def _check(settings: TrainSettings) -> None:
    for name in ("epochs", "patience", "batch_size", "learning_rate", "threads"):
        if not getattr(settings, name) > 0:
            raise SettingError(f"{name}: expected a number above 0, got {getattr(settings, name)}")


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


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
