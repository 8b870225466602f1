"""Scores requests, one run of a graph at a time; small ones that are there share a run.

A run takes about a millisecond in which the event loop does nothing else. Were all whose features arrive in
one turn of the loop scored in that turn, whoever comes meanwhile would wait for all of them, to be refused
too. So between two runs the loop takes a few turns: it answers who was scored, reads what came, sends away at
the door, and takes those who are let in as far as their read of features, which goes on beside the next run.
A request that has the process to itself is scored at once.

Who waits goes by priority and deadline, not by arrival: live requests first, though every tenth run is a
batch one's where any waits, and of each the earliest deadline. A run cannot be stopped, so where there are
live requests a long batch one is scored in pieces, each a short run. Small requests of one model share a run,
whose fixed part is tens of microseconds; nobody waits for company, and no timer is needed: while a run is
under way features arrive, and are all there in the next turn. A shared run is closed by rows, or where its
first member would have no time for more.

Each member waits for a future of its own that only `_run` sets, from the event loop and from no member's
task: whoever goes away is left out, or not listened to, and the others do not notice. A shared run that fails
is repeated member by member, so that it fails whose request it was.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rankd_service.batching.runs import Pieces, Scored, ToScore, together
from rankd_service.deadline import Deadline
from rankd_service.domain import Partition
from rankd_service.errors import DeadlineExceeded
from rankd_service.inference.batch import Batch
from rankd_service.inference.registry import LoadedModel
from rankd_service.settings import BatchingSettings
from rankd_service.telemetry import Telemetry

__all__ = ["Batcher"]

_LIVE_IN_A_ROW = 9
_LIVE_FOR_S = 1.0  # after a live request others are expected
_TURNS_BETWEEN_RUNS = 3  # a head is read in the first, its task begins in the second and asks the store


@dataclass(frozen=True, slots=True, eq=False)
class _Member:
    request: ToScore
    partition: Partition
    answer: asyncio.Future[Scored]
    pieces: Pieces | None


class Batcher:
    """Runs graphs, on the event loop that asks. `answer_s` of every deadline is kept for what follows."""

    def __init__(self, settings: BatchingSettings, answer_s: float, telemetry: Telemetry) -> None:
        """Start with nobody waiting."""
        self._most_candidates, self._most_rows = settings.max_candidates, settings.max_rows
        self._piece_s = settings.piece_ms / 1000
        self._answer_s, self._telemetry = answer_s, telemetry
        self._waiting: list[_Member] = []
        self._live_in_a_row, self._live_until_s = 0, -math.inf
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
        request = ToScore(model, asked, deadline, self._answer_s, cheaper)
        pieces = Pieces(request, self._piece_s) if self._makes_live_ones_wait(request, partition) else None
        if not (self._turns_left or self._waiting or pieces or (company and self._is_small(request))):
            self._wait_turns(_TURNS_BETWEEN_RUNS)
            return request.alone()
        member = _Member(request, partition, asyncio.get_running_loop().create_future(), pieces)
        self._waiting.append(member)
        if not self._turns_left:
            self._wait_turns(1)
        return await member.answer

    def _is_small(self, request: ToScore) -> bool:
        return len(request) <= self._most_candidates

    def _makes_live_ones_wait(self, request: ToScore, partition: Partition) -> bool:
        """Tell whether it is a long batch request, and there are live ones."""
        now_s = request.deadline.clock.monotonic_s()
        if partition is Partition.LIVE:
            self._live_until_s = now_s + _LIVE_FOR_S
            return False
        n = len(request)
        return now_s < self._live_until_s and request.model.cost.piece(n, self._piece_s) < n

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
            self._end_late(member)
        self._waiting = [member for member in self._waiting if not member.answer.done()]
        if not self._waiting:
            return
        members = self._first()
        first = members[0].request
        if members[0].pieces is None and self._is_small(first):
            rows = sum(len(member.request) for member in members)
            self._telemetry.model(first.model.card.name).batched(len(members), rows)
        self._answer(members)
        self._wait_turns(_TURNS_BETWEEN_RUNS)

    def _end_late(self, member: _Member) -> None:
        """Answer who cannot wait longer: with what was scored of it, while there is time to say so."""
        if member.answer.done():
            return
        given_up = None if member.pieces is None else member.pieces.given_up()
        if member.request.deadline.remaining_s() <= 0:
            member.answer.set_exception(DeadlineExceeded("the deadline passed before its turn to be scored"))
        elif given_up is not None:
            member.answer.set_result(given_up)

    def _first(self) -> list[_Member]:
        """Take who is scored now off those who wait: the first, and whoever fits beside it."""
        batch_next = self._live_in_a_row >= _LIVE_IN_A_ROW
        self._waiting.sort(
            key=lambda m: ((m.partition is Partition.BATCH) is not batch_next, m.request.deadline.expires_s)
        )
        first = self._waiting[0]
        of_batch = any(member.partition is Partition.BATCH for member in self._waiting)
        self._live_in_a_row = self._live_in_a_row + 1 if of_batch and first.partition is Partition.LIVE else 0
        if first.pieces is not None or not self._is_small(first.request):
            return [self._waiting.pop(0)]
        model = first.request.model
        most_rows = min(self._most_rows, first.request.rows_within(model))
        members, rows = [first], len(first.request)
        for member in self._waiting[1:]:
            request = member.request
            if member.pieces is None and request.model is model and self._is_small(request):
                rows += len(request)
                if rows > most_rows:
                    break
                members.append(member)
        self._waiting = [member for member in self._waiting if member not in members]
        return members

    def _answer(self, members: Sequence[_Member]) -> None:
        try:
            scored = self._score(members)
        except Exception as error:  # whatever the runtime raises; the members' tasks report it
            if len(members) == 1:
                members[0].answer.set_exception(error)
                return
            for member in members:
                self._answer([member])
            return
        for member, one in zip(members, scored, strict=True):
            if one is None:
                self._waiting.append(member)
            else:
                member.answer.set_result(one)

    def _score(self, members: Sequence[_Member]) -> Sequence[Scored | None]:
        """Run the graph once -> what each member is answered; None for one of which there is more."""
        first = members[0]
        if len(members) > 1:
            return together([member.request for member in members])
        return [first.request.alone() if first.pieces is None else first.pieces.more()]
