"""Scores requests: each alone, or small ones that are there at the same time in one run.

A run has a fixed part of tens of microseconds, which small requests can share. Nobody waits for company: a
request that has the process to itself is scored at once, as is one with many candidates. Where others are on
their way, those whose features are there in the same turn of the event loop are scored together at its end.
No timer is needed: while a run is under way the loop does nothing else, so the features that arrive
meanwhile are all there in the next turn.

Earliest deadlines go first, and a batch is closed by rows, or where its first member would have no time for
more. Each member waits for a future of its own that only `_run` sets, from the event loop and from no
member's task: whoever goes away is left out, or not listened to, and the others do not notice. A batch that
fails is run again member by member, so that it fails whose request it was.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankd_service.deadline import Deadline
from rankd_service.inference.batch import Batch, join
from rankd_service.inference.registry import LoadedModel
from rankd_service.settings import BatchingSettings
from rankd_service.telemetry import Telemetry

__all__ = ["Batcher", "Scored"]


@dataclass(frozen=True, slots=True)
class Scored:
    """Task scores float32 [N, T] of a request; its first `rows` candidates' are the graph's."""

    scores_NT: NDArray[np.float32]
    rows: int


@dataclass(frozen=True, slots=True)
class _Member:
    asked: Batch
    deadline: Deadline
    answer: asyncio.Future[Scored]


class Batcher:
    """Runs graphs, on the event loop that asks. `answer_s` of every deadline is kept for what follows."""

    def __init__(self, settings: BatchingSettings, answer_s: float, telemetry: Telemetry) -> None:
        """Start with nobody waiting."""
        self._most_candidates, self._most_rows = settings.max_candidates, settings.max_rows
        self._answer_s, self._telemetry = answer_s, telemetry
        self._waiting: dict[int, list[_Member]] = {}

    async def score(self, model: LoadedModel, asked: Batch, deadline: Deadline, *, company: bool) -> Scored:
        """Score one request; `company` where others may be there within this turn of the event loop."""
        waiting = self._waiting.get(id(model))
        if len(asked) > self._most_candidates or not (company or waiting):
            return self._alone(model, asked, deadline)
        loop = asyncio.get_running_loop()
        member = _Member(asked, deadline, loop.create_future())
        if waiting is None:
            self._waiting[id(model)] = [member]
            loop.call_soon(self._run, model)
        else:
            waiting.append(member)
        return await member.answer

    def _run(self, model: LoadedModel) -> None:
        """Score one batch of those who wait, and come back for the rest."""
        waiting = [m for m in self._waiting.pop(id(model)) if not m.answer.done()]
        waiting.sort(key=lambda member: member.deadline.expires_s)
        members = self._first(model, waiting)
        if len(members) < len(waiting):
            self._waiting[id(model)] = waiting[len(members) :]
            asyncio.get_running_loop().call_soon(self._run, model)
        if members:
            rows = sum(len(member.asked) for member in members)
            self._telemetry.model(model.card.name).batched(len(members), rows)
            self._answer(model, members)

    def _first(self, model: LoadedModel, waiting: list[_Member]) -> list[_Member]:
        """Return who is scored first: as many as fit in the time that the earliest deadline leaves."""
        if not waiting:
            return []
        most_rows = min(self._most_rows, self._rows_within(model, waiting[0].deadline))
        count, rows = 1, len(waiting[0].asked)
        while count < len(waiting) and rows + len(waiting[count].asked) <= most_rows:
            rows += len(waiting[count].asked)
            count += 1
        return waiting[:count]

    def _answer(self, model: LoadedModel, members: list[_Member]) -> None:
        try:
            scored = self._together(model, members)
        except Exception as error:  # whatever the runtime raises; the members' tasks report it
            if len(members) == 1:
                members[0].answer.set_exception(error)
                return
            for member in members:
                self._answer(model, [member])
            return
        for member, one in zip(members, scored, strict=True):
            member.answer.set_result(one)

    def _together(self, model: LoadedModel, members: list[_Member]) -> list[Scored]:
        if len(members) == 1:
            return [self._alone(model, members[0].asked, members[0].deadline)]
        batch, clock = join([member.asked for member in members]), members[0].deadline.clock
        began_s = clock.monotonic_s()
        scores_NT = model.score(batch, len(batch))
        model.cost.took(len(batch), clock.monotonic_s() - began_s)
        parts, end = [], 0
        for member in members:
            begin, end = end, end + len(member.asked)
            parts.append(Scored(scores_NT[begin:end].copy(), end - begin))  # no two share memory
        return parts

    def _alone(self, model: LoadedModel, asked: Batch, deadline: Deadline) -> Scored:
        """Score as many candidates as there is time for: a graph that runs cannot be stopped."""
        began_s = deadline.clock.monotonic_s()
        rows = min(len(asked), self._rows_within(model, deadline))
        scores_NT = model.score(asked, rows)
        model.cost.took(rows, deadline.clock.monotonic_s() - began_s)
        return Scored(scores_NT, rows)

    def _rows_within(self, model: LoadedModel, deadline: Deadline) -> int:
        return model.cost.rows_within(deadline.remaining_s() - self._answer_s)
