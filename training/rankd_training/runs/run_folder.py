"""The folder a run leaves: checkpoint, records, and a sample of validation rows for export's checks.

Appears whole or not at all. `run.json` says how it was made (no path of the machine), `metrics.json` how
good its scores are, as they leave the model, by split and task, and `calibration.json`, where asked for, how
they become probabilities; all are plain JSON.
"""

from __future__ import annotations

import json
import platform
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rankd_training.errors import RunError
from rankd_training.examples.examples import Examples
from rankd_training.measures.calibration import FILE as CALIBRATION
from rankd_training.measures.calibration import Calibrated
from rankd_training.measures.metrics import TaskMetrics
from rankd_training.models.registry import RankingModel
from rankd_training.runs import checkpoint
from rankd_training.runs.doubts import Doubts
from rankd_training.runs.samples import save_sample
from rankd_training.runs.seen_rows import SeenRows
from rankd_training.settings import TrainSettings

__all__ = [
    "METRICS",
    "RUN",
    "Attachments",
    "EpochRecord",
    "RunRecord",
    "check_free",
    "epoch_record",
    "publish",
    "read",
    "record_of",
]

METRICS, RUN = "metrics.json", "run.json"
FORMAT = "rankd-run/1"


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch: mean training loss, what validation rows say by task, wall time of both."""

    epoch: int
    loss: float
    valid_auc: Mapping[str, float]
    duration_s: float
    valid_user_auc: Mapping[str, float | None]
    valid_log_loss: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """How a run was made, and what is doubtful about its data. Times are ISO 8601, UTC.

    `seen` is the share of each other split's rows that are alike to a training row (`seen_rows.py`), None
    where too few rows can be compared.
    """

    format: str
    model: str
    seed: int
    examples_sha256: str
    split_by: str
    rows: Mapping[str, int]
    warnings: tuple[str, ...]
    parameters: int
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    started_at: str
    ended_at: str
    best_epoch: int
    epochs: tuple[EpochRecord, ...]
    seen: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attachments:
    """What a run's folder holds beside weights and records.

    Attributes:
        schema_text: the schema file as it was.
        examples: of whose validation rows a sample is kept.
        seen: the training rows, as other rows are held against.
        calibrated: None where none was asked for.
    """

    schema_text: bytes
    examples: Examples
    seen: SeenRows
    calibrated: Calibrated | None = None


def epoch_record(epoch: int, loss: float, valid: Mapping[str, TaskMetrics], duration_s: float) -> EpochRecord:
    """Put the record of an epoch together from its metrics on validation rows."""
    return EpochRecord(
        epoch=epoch,
        loss=loss,
        valid_auc={task: found.auc or 0.0 for task, found in valid.items()},
        duration_s=duration_s,
        valid_user_auc={task: found.user_auc for task, found in valid.items()},
        valid_log_loss={task: found.log_loss for task, found in valid.items()},
    )


def record_of(
    settings: TrainSettings,
    examples: Examples,
    epochs: tuple[EpochRecord, ...],
    doubts: Doubts,
    *,
    best_epoch: int,
    parameters: int,
    ran: tuple[str, str],
) -> RunRecord:
    """Put the record of a finished run together.

    Args:
        settings: what it was told.
        examples: what it learned from.
        epochs: all of them.
        doubts: what it says against itself.
        best_epoch: whose weights are kept.
        parameters: how many numbers were learned.
        ran: from when to when, ISO 8601, UTC.
    """
    named = {**asdict(settings), "examples": settings.examples.name, "schema": settings.schema.name}
    del named["output"]
    return RunRecord(
        format=FORMAT,
        model=settings.model,
        seed=settings.seed,
        examples_sha256=examples.sha256,
        split_by=examples.split_by,
        rows={split: len(rows) for split, rows in examples.rows.items()},
        warnings=doubts.warnings,
        parameters=parameters,
        settings=named,
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "rankd")},
        },
        started_at=ran[0],
        ended_at=ran[1],
        best_epoch=best_epoch,
        epochs=epochs,
        seen=doubts.seen,
    )


def check_free(folder: Path) -> None:
    """Raise RunError where a run would overwrite something."""
    if folder.exists() and not folder.is_dir():
        raise RunError(folder, "is a file; choose another folder for the run")
    if folder.exists() and any(folder.iterdir()):
        raise RunError(folder, "is not empty; choose another folder or remove this one")


def publish(
    folder: Path,
    model: RankingModel,
    record: RunRecord,
    metrics: Mapping[str, Mapping[str, TaskMetrics]],
    attached: Attachments,
    *,
    weights: Path | None = None,
) -> None:
    """Write everything beside `folder`, then rename it into place.

    `weights` is a file of the model's, beside `folder` too, where the model has not all of them.
    """
    staging = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    staging.mkdir(parents=True)
    try:
        checkpoint.save(staging, model, attached.schema_text, weights=weights)
        save_sample(staging, attached.examples)
        attached.seen.save(staging)
        tree = {split: {task: asdict(found) for task, found in by.items()} for split, by in metrics.items()}
        _write_json(staging / METRICS, tree)
        _write_json(staging / RUN, asdict(record))
        if attached.calibrated is not None:
            (staging / CALIBRATION).write_bytes(attached.calibrated.to_json())
        check_free(folder)
        staging.replace(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def read(folder: Path) -> tuple[RunRecord, dict[str, dict[str, TaskMetrics]]]:
    """Read a finished run's record, and its metrics by split and task.

    Raises:
        RunError: a file is missing, or is not what `publish` writes.
    """
    try:
        tree = json.loads((folder / RUN).read_text(encoding="utf-8"))
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        epochs = tuple(EpochRecord(**entry) for entry in tree.pop("epochs"))
        record = RunRecord(**{**tree, "warnings": tuple(tree["warnings"])}, epochs=epochs)
        return record, {
            split: {task: TaskMetrics(**found) for task, found in by_task.items()}
            for split, by_task in metrics.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(folder, f"not a complete run ({error}); train again with `rankd train`") from error


def _write_json(path: Path, tree: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(tree, indent=2, allow_nan=False) + "\n", encoding="utf-8")
