"""Scores requests, one run of a graph at a time; small ones that are there share a run.

A run takes about a millisecond in which the event loop does nothing else. Were all whose features arrive in
one turn of the loop scored in that turn, whoever comes meanwhile would wait for all of them, to be refused
too. So between two runs the loop takes a few turns: it answers who was scored, reads what came, sends away at
the door, and takes those who are let in as far as their read of features, which goes on beside the next run.
A request that has the process to itself is scored at once.

Who waits goes by priority and deadline, not by arrival: live requests first, though every tenth run is a
batch one's where any waits, and of each the earliest deadline. Small requests of one model share a run, whose
fixed part is tens of microseconds; nobody waits for company, and no timer is needed: while a run is under way
features arrive, and are all there in the next turn. A shared run is closed by rows, or where its first member
would have no time for more.

Each member waits for a future of its own that only `_run` sets, from the event loop and from no member's
task: whoever goes away is left out, or not listened to, and the others do not notice. A shared run that fails
is repeated member by member, so that it fails whose request it was.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankd_service.deadline import Deadline
from rankd_service.domain import Partition
from rankd_service.errors import DeadlineExceeded
from rankd_service.inference.batch import Batch, join
from rankd_service.inference.registry import LoadedModel
from rankd_service.settings import BatchingSettings
from rankd_service.telemetry import Telemetry

__all__ = ["Batcher", "Scored"]

_LIVE_IN_A_ROW = 9
_TURNS_BETWEEN_RUNS = 3  # a head is read in the first, its task begins in the second and asks the store


@dataclass(frozen=True, slots=True)
class Scored:
    """Task scores float32 [N, T] of a request; its first `rows` candidates' are the graph's of `model`."""

    scores_NT: NDArray[np.float32]
    rows: int
    model: LoadedModel


@dataclass(frozen=True, slots=True, eq=False)
class _Member:
    model: LoadedModel
    cheaper: LoadedModel | None
    asked: Batch
    deadline: Deadline
    partition: Partition
    answer: asyncio.Future[Scored]


class Batcher:
    """Runs graphs, on the event loop that asks. `answer_s` of every deadline is kept for what follows."""

    def __init__(self, settings: BatchingSettings, answer_s: float, telemetry: Telemetry) -> None:
        """Start with nobody waiting."""
        self._most_candidates, self._most_rows = settings.max_candidates, settings.max_rows
        self._answer_s, self._telemetry = answer_s, telemetry
        self._waiting: list[_Member] = []
        self._live_in_a_row = 0
        self._turns_left = 0  # until there may be another run

    async def score(
        self,
        model: LoadedModel,
        asked: Batch,
        deadline: Deadline,
        *,
        company: bool,
        partition: Partition = Partition.LIVE,
        cheaper: LoadedModel | None = None,
    ) -> Scored:
        """Score one request; `company` where others may be there within this turn of the event loop.

        `cheaper` scores in the model's place where that way there is time for more candidates. Raises
        DeadlineExceeded where its turn comes too late.
        """
        if not (self._turns_left or self._waiting or (company and self._is_small(asked))):
            self._wait_turns(_TURNS_BETWEEN_RUNS)
            return self._alone(model, cheaper, asked, deadline)
        member = _Member(
            model, cheaper, asked, deadline, partition, asyncio.get_running_loop().create_future()
        )
        self._waiting.append(member)
        if not self._turns_left:
            self._wait_turns(1)
        return await member.answer

    def _is_small(self, asked: Batch) -> bool:
        return len(asked) <= self._most_candidates

    def _wait_turns(self, turns: int) -> None:
        self._turns_left = turns
        asyncio.get_running_loop().call_soon(self._turn_over)

    def _turn_over(self) -> None:
        self._turns_left -= 1
        if self._turns_left:
            asyncio.get_running_loop().call_soon(self._turn_over)
        else:
            self._run()

    def _run(self) -> None:
        """Score who is first, alone or with others, and come back for the rest."""
        for member in self._waiting:
            if not member.answer.done() and member.deadline.remaining_s() <= 0:
                member.answer.set_exception(
                    DeadlineExceeded("the deadline passed before its turn to be scored")
                )
        self._waiting = [member for member in self._waiting if not member.answer.done()]
        if not self._waiting:
            return
        members = self._first()
        if len(members) > 1 or self._is_small(members[0].asked):
            rows = sum(len(member.asked) for member in members)
            self._telemetry.model(members[0].model.card.name).batched(len(members), rows)
        self._answer(members)
        self._wait_turns(_TURNS_BETWEEN_RUNS)

    def _first(self) -> list[_Member]:
        """Take who is scored now off those who wait: the first, and whoever fits beside it."""
        batch_next = self._live_in_a_row >= _LIVE_IN_A_ROW
        self._waiting.sort(
            key=lambda m: ((m.partition is Partition.BATCH) is not batch_next, m.deadline.expires_s)
        )
        first = self._waiting[0]
        of_batch = any(member.partition is Partition.BATCH for member in self._waiting)
        self._live_in_a_row = self._live_in_a_row + 1 if of_batch and first.partition is Partition.LIVE else 0
        if not self._is_small(first.asked):
            return [self._waiting.pop(0)]
        most_rows = min(self._most_rows, self._rows_within(first.model, first.deadline))
        members, rows = [first], len(first.asked)
        for member in self._waiting[1:]:
            if member.model is first.model and self._is_small(member.asked):
                rows += len(member.asked)
                if rows > most_rows:
                    break
                members.append(member)
        self._waiting = [member for member in self._waiting if member not in members]
        return members

    def _answer(self, members: list[_Member]) -> None:
        try:
            scored = self._together(members)
        except Exception as error:  # whatever the runtime raises; the members' tasks report it
            if len(members) == 1:
                members[0].answer.set_exception(error)
                return
            for member in members:
                self._answer([member])
            return
        for member, one in zip(members, scored, strict=True):
            member.answer.set_result(one)

    def _together(self, members: list[_Member]) -> list[Scored]:
        first = members[0]
        if len(members) == 1:
            return [self._alone(first.model, first.cheaper, first.asked, first.deadline)]
        batch, clock = join([member.asked for member in members]), first.deadline.clock
        began_s = clock.monotonic_s()
        scores_NT = first.model.score(batch, len(batch))
        first.model.cost.took(len(batch), clock.monotonic_s() - began_s)
        parts, end = [], 0
        for member in members:
            begin, end = end, end + len(member.asked)
            # No two share memory.
            parts.append(Scored(scores_NT[begin:end].copy(), end - begin, first.model))
        return parts

    def _alone(
        self, model: LoadedModel, cheaper: LoadedModel | None, asked: Batch, deadline: Deadline
    ) -> Scored:
        """Score as many candidates as there is time for: a graph that runs cannot be stopped."""
        began_s = deadline.clock.monotonic_s()
        rows = min(len(asked), self._rows_within(model, deadline))
        if rows < len(asked) and cheaper is not None:
            more = min(len(asked), self._rows_within(cheaper, deadline))
            model, rows = (cheaper, more) if more > rows else (model, rows)
        scores_NT = model.score(asked, rows)
        model.cost.took(rows, deadline.clock.monotonic_s() - began_s)
        return Scored(scores_NT, rows, model)

    def _rows_within(self, model: LoadedModel, deadline: Deadline) -> int:
        return model.cost.rows_within(deadline.remaining_s() - self._answer_s)
