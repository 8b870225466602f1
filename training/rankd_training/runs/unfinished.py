"""What a run that was killed needs to go on: a hidden folder beside the run's own, gone when the run is done.

`settings.json` says what was asked for; each state is a folder of its own, renamed into place when complete,
after which the one before is removed, so there is always a whole one. Tensors are safetensors, the rest JSON.

Legend: n rows.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rankd_training.config import read_config
from rankd_training.errors import RunError
from rankd_training.runs.checkpoint import link
from rankd_training.runs.held import held
from rankd_training.runs.run_folder import EpochRecord
from rankd_training.runs.spread import Spread, write
from rankd_training.settings import TrainSettings

__all__ = ["Course", "State", "Unfinished"]

FORMAT = "rankd-unfinished/1"
SETTINGS, COURSE = "settings.json", "course.json"
WEIGHTS, BEST, OPTIMISER, DRAWN = (
    f"{name}.safetensors" for name in ("weights", "best", "optimiser", "drawn")
)
_PATHS = ("examples", "schema", "output")


@dataclass(slots=True)
class Course:
    """How far a run has come.

    Attributes:
        started_at: ISO 8601, UTC.
        examples_sha256: what it learns from.
        schema: fingerprint of the schema that it is read by.
        epoch: the one under way, from 1.
        step: steps of it that are done.
        rows_done: rows of it that are done, over all processes.
        loss_sum: of those rows.
        best_epoch: 0 before the first is judged.
        best_score: of that epoch, higher is better.
        epochs: those that are over.
    """

    started_at: str
    examples_sha256: str
    schema: str = ""
    epoch: int = 1
    step: int = 0
    rows_done: int = 0
    loss_sum: float = 0.0
    best_epoch: int = 0
    best_score: float | None = None
    epochs: list[EpochRecord] = field(default_factory=list)

    def end_epoch(self, record: EpochRecord) -> None:
        """Turn to the next epoch."""
        self.epochs.append(record)
        self.epoch, self.step, self.rows_done, self.loss_sum = self.epoch + 1, 0, 0, 0.0


@dataclass(frozen=True, slots=True)
class State:
    """A course with everything that going on from there needs.

    Attributes:
        course: how far it has come.
        weights: the file of the model's, for `checkpoint.read_into`.
        optimiser: mapped from its file.
        random: the generator's state, a row a process.
        order_n: the rows of the epoch under way; empty where none is.
    """

    course: Course
    weights: Path
    optimiser: dict[str, Tensor]
    random: Tensor
    order_n: Tensor


class Unfinished:
    """The folder of one run that is under way."""

    def __init__(self, output: Path) -> None:
        """Nothing is read or written yet."""
        self.folder = output.with_name(f".{output.name}.unfinished")
        self._output = output

    def begin(self, settings: TrainSettings) -> None:
        """Make the folder. Raises RunError where another run to the same place is under way or was killed."""
        if self.folder.exists():
            raise RunError(
                self.folder,
                f"a run to {self._output} was not finished; go on with `rankd train --resume "
                f"{self._output}`, or remove this folder",
            )
        self.folder.mkdir(parents=True)
        tree = asdict(settings) | {name: str(getattr(settings, name).absolute()) for name in _PATHS}
        _write(self.folder / SETTINGS, {"format": FORMAT, **tree})

    def alone(self) -> AbstractContextManager[None]:
        """Have the run to oneself. Raises RunError where another process is at it."""
        return held(self.folder / SETTINGS, "this run")

    def settings(self) -> TrainSettings:
        """Return what the run was told. Raises RunError where there is no such run."""
        if not self.folder.exists():
            done = "it is finished" if self._output.exists() else "no run to there was begun"
            raise RunError(self._output, f"there is nothing to go on with: {done}")
        tree = _read(self.folder / SETTINGS)
        if tree.pop("format", None) != FORMAT:
            raise RunError(self.folder, f"was not written by this version ({FORMAT}); train again")
        return read_config(TrainSettings, tree | {name: Path(tree[name]) for name in _PATHS})

    def save(
        self,
        course: Course,
        weights: Mapping[str, Tensor | Spread],
        optimiser: Mapping[str, Tensor | Spread],
        random: Tensor,
        order_n: Tensor,
        *,
        best: Mapping[str, Tensor | Spread] | None,
    ) -> None:
        """Write a state, as the first process; meanwhile others hand over weights, then optimiser.

        `best`: `weights` itself, or others that are held here; None, and the best of before stay.
        """
        new, before = self.folder / "new", self._latest()
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        drawn = {"random": random, "order": order_n}
        files: list[tuple[str, Mapping[str, Tensor | Spread]]] = [
            (WEIGHTS, weights),
            (OPTIMISER, optimiser),
            (DRAWN, drawn),
        ]
        if best is not None and best is not weights:
            files.append((BEST, best))
        for name, tensors in files:
            write(new / name, tensors)
        kept = new / WEIGHTS if best is weights else before / BEST if best is None and before else None
        if kept is not None and kept.exists():
            link(kept, new / BEST)  # a table is written once, not twice
        _write(new / COURSE, asdict(course))
        place = self.folder / f"state-{course.epoch:05d}-{course.step:09d}"
        shutil.rmtree(place, ignore_errors=True)
        new.replace(place)
        if before is not None and before != place:
            shutil.rmtree(before)

    def load(self) -> State | None:
        """Return the last state; None where none was written yet. Raises RunError where it cannot be read."""
        place = self._latest()
        if place is None:
            return None
        try:
            tree = _read(place / COURSE)
            tree["epochs"] = [EpochRecord(**entry) for entry in tree["epochs"]]
            optimiser, drawn = load_file(place / OPTIMISER), load_file(place / DRAWN)
            return State(Course(**tree), place / WEIGHTS, optimiser, drawn["random"], drawn["order"])
        except (SafetensorError, TypeError, KeyError, OSError) as error:
            raise RunError(place, f"cannot be read: {error}; remove {self.folder} and train again") from error

    def best(self) -> Path:
        """Return the file of the best weights so far; there is one once an epoch is over."""
        place = self._latest()
        assert place is not None, "an epoch that was judged has been saved"
        return place / BEST

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _latest(self) -> Path | None:
        return max(self.folder.glob("state-*"), default=None)


def _write(path: Path, tree: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(path, f"cannot be read: {error}; remove its folder and train again") from error
    if not isinstance(tree, dict):
        raise RunError(path, "does not hold what a run wrote; remove its folder and train again")
    return tree
