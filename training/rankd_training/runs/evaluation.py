"""How good a run's model is on a file of examples: metrics with intervals, over all rows and by slice.

Legend: N rows, T tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rankd_training.errors import ExamplesError, SettingError
from rankd_training.examples.examples import Examples
from rankd_training.examples.reading import examples_for, reading_of
from rankd_training.measures.intervals import RESAMPLES, Estimate, auc_estimate, estimates
from rankd_training.measures.metrics import calibration_error
from rankd_training.runs.finished import Run, score_rows
from rankd_training.runs.slices import Slice, by_activity, by_field

__all__ = [
    "ACTIVITY",
    "ALL",
    "Evaluation",
    "SliceMetrics",
    "Subject",
    "evaluate_run",
    "load_subject",
    "sliced",
    "write_scores",
]

ACTIVITY = "training rows of the user"
ALL = "all"
TRAIN, TEST = "train", "test"


@dataclass(frozen=True, slots=True)
class Subject:
    """A run beside the rows that it is judged on.

    Attributes:
        run: the run.
        path: file of the examples.
        examples: encoded under the run's own schema.
        split: which of them; `all` for all.
        row_N: where they are.
        score_NT: what is said of them where the model is served, so calibrated if the run is.
    """

    run: Run
    path: Path
    examples: Examples
    split: str
    row_N: npt.NDArray[np.int64]
    score_NT: npt.NDArray[np.float32]

    @property
    def label_NT(self) -> npt.NDArray[np.float32]:
        """What happened."""
        return self.examples.label_nT[self.row_N]

    @property
    def user_N(self) -> npt.NDArray[np.int64]:
        """Whose rows they are."""
        return self.examples.group_n[self.row_N]

    @property
    def calibrated(self) -> bool:
        """Whether a curve lies between the model's scores and these."""
        return any(self.run.calibration.curves)

    @property
    def unseen(self) -> bool:
        """Whether these rows are of another file that does not say itself which rows are for training."""
        return self.examples.dealt and not self.same_file

    @property
    def same_file(self) -> bool:
        """Whether the run was trained on this very file."""
        return bool(self.examples.sha256 == self.run.record.get("examples_sha256"))


@dataclass(frozen=True, slots=True)
class SliceMetrics:
    """One task on one slice. The AUC is None where the slice holds one class only."""

    title: str
    rows: int
    base_rate: float
    mean_score: float
    auc: Estimate | None
    calibration_error: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All of it.

    Attributes:
        split: which rows.
        rows: how many.
        users: how many groups they fall into; intervals draw these anew. As many as rows where there are no
            users.
        positives: rows with a label of 1, by task.
        metrics: by task and measure (auc, user_auc, log_loss, calibration_error).
        slices: by what the rows were told apart by, then by task.
    """

    split: str
    rows: int
    users: int
    positives: Mapping[str, int]
    metrics: Mapping[str, Mapping[str, Estimate | None]]
    slices: Mapping[str, Mapping[str, Sequence[SliceMetrics]]]


def load_subject(
    run: Path, path: Path, *, split: str | None = None, group_column: str | None = None
) -> Subject:
    """Read a run and score a split of the examples with it.

    Args:
        run: its folder.
        path: the examples; columns as in training.
        split: train, valid, test or all. By default test; all where the file is not the one trained on and
            does not say itself which rows are for what: nothing in it was learned from.
        group_column: whose row it is; by default what training took.

    Raises:
        RunError: the folder is no run.
        SettingError: there is no such split.
        ExamplesError: the file does not fit the run's schema, or has no row of the split.
    """
    found = Run.load(run)
    reading = reading_of(found.record["settings"]) | reading_of({"group_column": group_column})
    examples = examples_for(path, found.schema, reading, to_train=False)
    if split is None:
        another = examples.sha256 != found.record.get("examples_sha256")
        split = ALL if another and examples.dealt else TEST
    rows = {**examples.rows, ALL: np.arange(len(examples))}
    if split not in rows:
        raise SettingError(f"no split is called {split!r}; there are {', '.join(rows)}")
    row_N = rows[split]
    if not len(row_N):
        have = ", ".join(f"{len(at):,} of {name}" for name, at in rows.items() if len(at) and name != ALL)
        problem = f"has no row of '{split}' ({examples.split_by}), but {have}; `all` judges them together"
        raise ExamplesError(path, problem)
    score_NT = found.calibration(score_rows(found.model, examples, row_N))
    return Subject(found, path, examples, split, row_N, score_NT)


def write_scores(subject: Subject, path: Path) -> None:
    """Write what was said of each row, and what happened, as Parquet.

    `row` is its place in the examples, from 0; then `score_TASK` and `label_TASK` of each task, float32.
    """
    columns: dict[str, npt.NDArray[np.int64] | npt.NDArray[np.float32]] = {"row": subject.row_N}
    label_NT = subject.label_NT
    for t, task in enumerate(subject.run.schema.tasks):
        columns[f"score_{task.name}"] = np.ascontiguousarray(subject.score_NT[:, t])
        columns[f"label_{task.name}"] = np.ascontiguousarray(label_NT[:, t])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def evaluate_run(
    subject: Subject,
    *,
    by: Sequence[str] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Judge a run's scores.

    Args:
        subject: from `load_subject`.
        by: fields or columns whose values tell rows apart, besides the user's activity.
        resamples: draws of users for the intervals.
        seed: of these draws.
        progress: told what is done next.

    Raises:
        SettingError: a field or column does not exist.
        ExamplesError: the file cannot be read.
    """
    # Where each row is its own user there is no activity to tell rows apart by.
    repeated = len(np.unique(subject.examples.group_n)) < len(subject.examples)
    # Nor where the rows that the model was trained on are not here.
    known = not subject.unseen and len(subject.examples.rows[TRAIN]) > 0
    slices = {ACTIVITY: by_activity(subject.examples, subject.row_N)} if repeated and known else {}
    slices |= {name: by_field(subject.path, subject.run.schema, name, subject.row_N) for name in by}
    metrics = {}
    for t, task in enumerate(subject.run.schema.tasks):
        progress(f"intervals of {task.name}")
        metrics[task.name] = estimates(
            subject.label_NT[:, t], subject.score_NT[:, t], subject.user_N, resamples=resamples, seed=seed
        )
    found = {}
    for title, pieces in slices.items():
        progress(f"by {title}")
        found[title] = sliced(subject, pieces, resamples=resamples, seed=seed)
    users, positive_T = len(np.unique(subject.user_N)), subject.label_NT.sum(0, dtype=np.int64)
    positives = {task.name: int(positive_T[t]) for t, task in enumerate(subject.run.schema.tasks)}
    return Evaluation(subject.split, len(subject.row_N), users, positives, metrics, found)


def sliced(
    subject: Subject, pieces: Sequence[Slice], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, list[SliceMetrics]]:
    """Judge each slice for each task."""
    label_NT, user_N = subject.label_NT, subject.user_N
    return {
        task.name: [
            _slice_metrics(
                piece,
                label_NT[piece.at, t],
                subject.score_NT[piece.at, t],
                user_N[piece.at],
                resamples=resamples,
                seed=seed,
            )
            for piece in pieces
        ]
        for t, task in enumerate(subject.run.schema.tasks)
    }


def _slice_metrics(
    piece: Slice,
    label_N: npt.NDArray[np.float32],
    score_N: npt.NDArray[np.float32],
    user_N: npt.NDArray[np.int64],
    *,
    resamples: int,
    seed: int,
) -> SliceMetrics:
    return SliceMetrics(
        title=piece.title,
        rows=len(label_N),
        base_rate=float(label_N.mean()),
        mean_score=float(score_N.mean()),
        auc=auc_estimate(label_N, score_N, user_N, resamples=resamples, seed=seed),
        calibration_error=calibration_error(label_N, score_N),
    )
