"""One pass of learning over the training rows, and what the model then says of others.

Legend: n rows, N rows of a batch, T tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rankd_training.examples.batches import Batches
from rankd_training.learning.losses import Loss
from rankd_training.learning.optimisers import Optimisers
from rankd_training.learning.ranks import ALONE, Ranks
from rankd_training.learning.schedule import rate_share
from rankd_training.learning.unknowns import UnknownValues
from rankd_training.measures.metrics import TaskMetrics, evaluate
from rankd_training.models.registry import RankingModel
from rankd_training.progress import Progress
from rankd_training.runs.unfinished import Course
from rankd_training.settings import TrainSettings

__all__ = ["Learner", "all_finite"]

CHECKED_AT_ONCE = 1 << 22  # weights


@dataclass(frozen=True, slots=True)
class Learner:
    """A model with everything that it learns by."""

    model: RankingModel
    optimisers: Optimisers
    loss_of: Loss
    unknowns: UnknownValues
    batches: Batches
    settings: TrainSettings
    ranks: Ranks

    def learn(self, order_n: Tensor, course: Course, progress: Progress, save: Callable[[], None]) -> float:
        """Go through `order_n` from where `course` stands, which moves along -> the epoch's mean loss.

        `save` is called after every `checkpoint_steps` steps but the epoch's last, when a run can go on from
        there.
        """
        self.model.train()
        forward = torch.compile(self.model) if self.settings.compile else self.model
        began, began_at = perf_counter(), course.rows_done
        steps = torch.split(order_n, self.settings.batch_size)
        for chosen_N in steps[course.step :]:
            done = (course.epoch - 1) * len(steps) + course.step
            share = rate_share(self.settings.schedule, done, self.settings.epochs * len(steps))
            loss = self._step(forward, chosen_N, course.epoch, share)
            course.step += 1
            course.rows_done += len(chosen_N)
            course.loss_sum += loss * len(chosen_N)
            progress.step(course.step, loss, (course.rows_done - began_at) / (perf_counter() - began))
            every = self.settings.checkpoint_steps
            if every and course.step % every == 0 and course.step < len(steps):
                save()
        return course.loss_sum / course.rows_done

    def _step(
        self, forward: Callable[[dict[str, Tensor]], Tensor], chosen_N: Tensor, epoch: int, rate_share: float
    ) -> float:
        mine_N = self.ranks.share(chosen_N)
        batch = self.batches.read(mine_N)
        self.optimisers.zero_grad()
        with _arithmetic(self.settings.precision):
            logit_NT = forward(self.unknowns.hide(batch.features)).float()
        # A last batch may have fewer rows than there are processes, and a mean of none is no number.
        told = (logit_NT, batch.label_NT, batch.group_N, epoch)
        loss = self.loss_of(*told) if len(mine_N) else logit_NT.sum()
        if self.ranks.many:  # gradients summed over processes are then those of the whole batch's mean
            loss = loss * (len(mine_N) / len(chosen_N))
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.optimisers.step(rate_share)
        return self.ranks.summed(loss.detach()).item()

    @torch.no_grad()
    def predict(self, rows_n: npt.NDArray[np.int64]) -> Tensor:
        """Logits [n, T] of some rows, worked out by all processes together."""
        self.model.eval()
        mine_n = self.ranks.share(torch.from_numpy(rows_n))
        none_NT = torch.empty(0, len(self.batches.examples.schema.tasks))
        # A model that reads other processes' rows has to read as often as they do, if only nothing.
        together = self.model.embedding.spread
        largest = self.ranks.largest(len(rows_n)) if together else 0
        logits = [
            self.model(batch.features)
            for batch in self.batches.in_turn(mine_n, as_for=largest)
            if together or len(batch.label_NT)
        ]
        return self.ranks.join(torch.cat([none_NT, *logits]))

    def scores(self, split: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return what the model says of one split's rows, and their labels: both [n, T]."""
        rows_n = self.batches.examples.rows[split]
        return torch.sigmoid(self.predict(rows_n)).numpy(), self.batches.examples.label_nT[rows_n]

    def judge(self, split: str) -> dict[str, TaskMetrics]:
        """Say how good the model is on one split, by task."""
        examples = self.batches.examples
        score_nT, label_nT = self.scores(split)
        group_n = examples.group_n[examples.rows[split]]
        return {
            task.name: evaluate(label_nT[:, t], score_nT[:, t], group_n)
            for t, task in enumerate(examples.schema.tasks)
        }


@torch.no_grad()
def all_finite(model: RankingModel, ranks: Ranks = ALONE) -> bool:
    """Say whether every weight of every process is a finite number; a table is looked at piece by piece."""
    pieces = (piece for p in model.parameters() for piece in torch.split(p.reshape(-1), CHECKED_AT_ONCE))
    finite = all(bool(piece.isfinite().all()) for piece in pieces)
    return not ranks.summed(torch.tensor(0.0 if finite else 1.0)).item()


def _arithmetic(precision: str) -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16) if precision == "bfloat16" else nullcontext()
