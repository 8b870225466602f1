"""A run beside the rows that it is judged on, and what its model says of each.

Legend: N rows, T tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rankd_training.errors import ExamplesError, SettingError
from rankd_training.examples.examples import Examples
from rankd_training.examples.reading import examples_for, reading_of
from rankd_training.runs.finished import Run, score_rows
from rankd_training.runs.seen_rows import SeenRows, Share

__all__ = ["ALL", "TRAIN", "Subject", "load_subject", "write_scores"]

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
        seen: of rows of another file, the share that are alike to one of the run's training rows; None where
            that is not known.
    """

    run: Run
    path: Path
    examples: Examples
    split: str
    row_N: npt.NDArray[np.int64]
    score_NT: npt.NDArray[np.float32]
    seen: Share | None

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
    def seen_usually(self) -> float:
        """The share of the run's own test rows that are alike to one it was trained on."""
        return float(self.run.record.get("seen", {}).get(TEST) or 0.0)

    @property
    def told_before(self) -> bool:
        """Whether more of these rows were trained on than chance makes alike."""
        return self.seen is not None and self.seen.beyond(self.seen_usually)

    @property
    def provenance(self) -> str | None:
        """What to know of rows of another file, in words; None of the file that the run was trained on."""
        if self.same_file:
            return None
        said = "not the file that the run was trained on; "
        if self.seen is None:
            return f"{said}whether these rows are among its training rows is not known"
        about = "" if self.seen.of == len(self.row_N) else "about "
        said += (
            f"{about}{self.seen.value:.1%} of these rows are alike to a training row in all fields and labels"
        )
        if not self.told_before:
            return said
        return f"{said} ({self.seen_usually:.1%} of the run's own test rows are), so the numbers say too much"

    @property
    def same_file(self) -> bool:
        """Whether the run was trained on this very file."""
        return bool(self.examples.sha256 == self.run.record.get("examples_sha256"))


def load_subject(
    run: Path, path: Path, *, split: str | None = None, group_column: str | None = None
) -> Subject:
    """Read a run and score a split of the examples with it.

    Args:
        run: its folder.
        path: the examples; columns as in training.
        split: train, valid, test or all. By default test; all where the file is not the one trained on and
            does not say itself which rows are for what.
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
    another = examples.sha256 != found.record.get("examples_sha256")
    trained_on = SeenRows.load(run) if another else None
    seen = None if trained_on is None else trained_on.share(examples, row_N)
    return Subject(found, path, examples, split, row_N, score_NT, seen)


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
