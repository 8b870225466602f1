"""How good a run's model is on a file of examples: metrics with intervals, over all rows and by slice.

Legend: N rows, T tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import log_loss

from rankd_training.measures.intervals import RESAMPLES, Estimate, auc_estimate, estimates
from rankd_training.measures.metrics import calibration_error, user_aucs
from rankd_training.runs.slices import Slice, by_activity, by_field
from rankd_training.runs.subject import TRAIN, Subject

__all__ = [
    "ACTIVITY",
    "Evaluation",
    "SliceMetrics",
    "TaskFacts",
    "evaluate_run",
    "sliced",
]

ACTIVITY = "training rows of the user"


@dataclass(frozen=True, slots=True)
class SliceMetrics:
    """One task on one slice. The AUC is None where the slice holds one class only."""

    title: str
    rows: int
    positives: int
    base_rate: float
    mean_score: float
    auc: Estimate | None
    calibration_error: float


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What the metrics of a task are to be read beside.

    Attributes:
        positives: rows with a label of 1.
        mean_score: beside their share, whether scores are too high or too low as a whole.
        constant_log_loss: of saying that share of every row; a model that knows anything is below.
        ranked_users: those with both classes, whose AUCs make the AUC within users.
    """

    positives: int
    mean_score: float
    constant_log_loss: float
    ranked_users: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All of it.

    Attributes:
        split: which rows.
        rows: how many.
        nobodys: how many of them have no user though others have.
        users: how many users the others have; intervals draw these anew. As many as rows where there are no
            users.
        facts: by task.
        metrics: by task and measure (auc, user_auc, log_loss, calibration_error).
        slices: by what the rows were told apart by, then by task.
    """

    split: str
    rows: int
    nobodys: int
    users: int
    facts: Mapping[str, TaskFacts]
    metrics: Mapping[str, Mapping[str, Estimate | None]]
    slices: Mapping[str, Mapping[str, Sequence[SliceMetrics]]]

    @property
    def ranks_for_users(self) -> bool:
        """Whether some user has several rows."""
        return self.nobodys + self.users < self.rows

    @property
    def whose(self) -> str:
        """How many users the rows are of, in words; nothing where there are none."""
        if not self.ranks_for_users:
            return ""
        nobodys = f", {self.nobodys:,} of nobody" if self.nobodys else ""
        return f" of {self.users:,} users{nobodys}"


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
    metrics, facts = {}, {}
    for t, task in enumerate(subject.run.schema.tasks):
        progress(f"intervals of {task.name}")
        rows = subject.label_NT[:, t], subject.score_NT[:, t], subject.user_N
        metrics[task.name] = estimates(*rows, resamples=resamples, seed=seed)
        facts[task.name] = _facts(*rows)
    found = {}
    for title, pieces in slices.items():
        progress(f"by {title}")
        found[title] = sliced(subject, pieces, resamples=resamples, seed=seed)
    nobodys_N = subject.examples.nobodys(subject.row_N)
    return Evaluation(
        split=subject.split,
        rows=len(subject.row_N),
        nobodys=int(nobodys_N.sum()),
        users=len(np.unique(subject.user_N[~nobodys_N])),
        facts=facts,
        metrics=metrics,
        slices=found,
    )


def _facts(
    label_N: npt.NDArray[np.float32], score_N: npt.NDArray[np.float32], user_N: npt.NDArray[np.int64]
) -> TaskFacts:
    rate_N = np.full(len(label_N), label_N.mean(dtype=np.float64))
    return TaskFacts(
        positives=int(label_N.sum(dtype=np.int64)),
        mean_score=float(score_N.mean(dtype=np.float64)),
        constant_log_loss=float(log_loss(label_N, rate_N, labels=[0, 1])),
        ranked_users=len(user_aucs(label_N, score_N, user_N).user_U),
    )


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
        positives=int(label_N.sum()),
        base_rate=float(label_N.mean()),
        mean_score=float(score_N.mean()),
        auc=auc_estimate(label_N, score_N, user_N, resamples=resamples, seed=seed),
        calibration_error=calibration_error(label_N, score_N),
    )
