"""Runs of a graph: of one request, of several that share it, or of a part of a long one.

A run cannot be stopped. So each is given no more candidates than there is time for; what it took is noted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankd_service.deadline import Deadline
from rankd_service.inference.batch import Batch, join
from rankd_service.inference.registry import LoadedModel

__all__ = ["Pieces", "Scored", "ToScore", "together"]


@dataclass(frozen=True, slots=True)
class Scored:
    """Task scores float32 [N, T] of a request; its first `rows` candidates' are the graph's of `model`."""

    scores_NT: NDArray[np.float32]
    rows: int
    model: LoadedModel


@dataclass(frozen=True, slots=True)
class ToScore:
    """A request's tensors, and by when. `cheaper` may score in the model's place, `answer_s` is kept back."""

    model: LoadedModel
    batch: Batch
    deadline: Deadline
    answer_s: float
    cheaper: LoadedModel | None = None

    def __len__(self) -> int:
        """Return the number of candidates N."""
        return len(self.batch)

    def rows_within(self, model: LoadedModel) -> int:
        """Return how many rows a model can score in the time that is left."""
        return model.cost.rows_within(self.deadline.remaining_s() - self.answer_s)

    def affordable(self) -> tuple[LoadedModel, int]:
        """Return which model scores, and how many of the candidates there is time for."""
        n, rows = len(self), self.rows_within(self.model)
        if rows < n and self.cheaper is not None:
            more = self.rows_within(self.cheaper)
            return (self.cheaper, min(n, more)) if more > rows else (self.model, rows)
        return self.model, min(n, rows)

    def alone(self) -> Scored:
        """Score as many candidates as there is time for."""
        began_s = self.deadline.clock.monotonic_s()
        model, rows = self.affordable()
        scores_NT = model.score(self.batch, rows)
        model.cost.took(rows, self.deadline.clock.monotonic_s() - began_s)
        return Scored(scores_NT, rows, model)


def together(requests: Sequence[ToScore]) -> list[Scored]:
    """Score requests of one model in one run; there is time for all of them."""
    model, clock = requests[0].model, requests[0].deadline.clock
    batch = join([request.batch for request in requests])
    began_s = clock.monotonic_s()
    scores_NT = model.score(batch, len(batch))
    model.cost.took(len(batch), clock.monotonic_s() - began_s)
    parts, end = [], 0
    for request in requests:
        begin, end = end, end + len(request)
        parts.append(Scored(scores_NT[begin:end].copy(), end - begin, model))  # no two share memory
    return parts


class Pieces:
    """A request that is scored in several runs of about `piece_s`, one after the other."""

    def __init__(self, request: ToScore, piece_s: float) -> None:
        """Score nothing yet."""
        self._request, self._piece_s = request, piece_s
        self._so_far: Scored | None = None

    def given_up(self) -> Scored | None:
        """Return what was scored so far, where there is no time for more; else None."""
        so_far = self._so_far
        return None if so_far is None or self._request.rows_within(so_far.model) else so_far

    def more(self) -> Scored | None:
        """Score the next piece -> the whole, once there is no more, or no time for more."""
        batch, clock = self._request.batch, self._request.deadline.clock
        began_s = clock.monotonic_s()
        if self._so_far is None:
            model, _ = self._request.affordable()
            self._so_far = Scored(model.unscored(batch), 0, model)
        scores_NT, begin, model = self._so_far.scores_NT, self._so_far.rows, self._so_far.model
        rows = model.cost.piece(len(batch) - begin, self._piece_s)
        rows = min(rows, self._request.rows_within(model))
        end = begin + rows
        if rows:
            scores_NT[begin:end] = model.score(batch.part(begin, end), rows)
        model.cost.took(rows, clock.monotonic_s() - began_s)
        self._so_far = Scored(scores_NT, end, model)
        return self._so_far if not rows or end == len(batch) else None
