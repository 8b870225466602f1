"""The door: gives permits up to a limit, lets a bounded number wait, and sends the rest away at once.

Who could not be answered in time even if everything goes as usual is sent away before any work is done for
them; so is whoever the queue has no room for. Live requests go first, but a share is kept for batch ones, so
that neither starves the other. Refused requests never feed the limit: they are fast for the wrong reason.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable

from rankd_service.admission.limit import GradientLimit
from rankd_service.deadline import Clock
from rankd_service.domain import Partition
from rankd_service.errors import RejectReason, Unavailable

__all__ = ["Limiter", "Permit"]

_BATCH_SHARE = 0.1
_MARGIN = 2.0  # a queue as long as the deadline allows would make every second answer late
_OCCUPANCY = 0.05  # weight of one sample in how long the process is busy with a request


class Permit:
    """The right to be worked on, from `Limiter.enter` to `leave`."""

    __slots__ = ("_began_s", "_limiter", "_under_way", "partition")

    def __init__(self, limiter: Limiter, partition: Partition, began_s: float, under_way: int) -> None:
        """Made by the limiter."""
        self._limiter, self.partition = limiter, partition
        self._began_s, self._under_way = began_s, under_way

    def leave(self, *, counts: bool) -> None:
        """Give the permit back. `counts` where the request was answered, so that its time says something."""
        self._limiter._left(self.partition, self._began_s, self._under_way, counts)


class Limiter:
    """Admits requests of two partitions. `most_waiting` bounds each one's queue."""

    def __init__(
        self,
        limit: GradientLimit,
        clock: Clock,
        most_waiting: int,
        share: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Start with nobody inside."""
        self._limit, self._clock, self._most_waiting, self._share = limit, clock, most_waiting, share
        self._under_way = dict.fromkeys(Partition, 0)
        self._waiting: dict[Partition, deque[asyncio.Future[Permit | None]]] = {p: deque() for p in Partition}
        self.restrained = False
        self._interval_s = 0.0
        self._last_left_s: float | None = None

    @property
    def under_way(self) -> int:
        """Requests that hold a permit."""
        return sum(self._under_way.values())

    @property
    def waiting(self) -> int:
        """Requests that wait for one."""
        return sum(map(len, self._waiting.values()))

    @property
    def value(self) -> int:
        """The limit as it is now; the least there is while `restrained`."""
        return self._limit.least if self.restrained else self._limit.value

    def refusal(self, partition: Partition, left_s: float, ahead: int = 0) -> Unavailable | None:
        """Return why a request that has so much time left would be sent away now, or None.

        `ahead` others are about to enter before it.
        """
        places = len(self._waiting[partition]) + ahead
        if not places and self._may_begin(partition):
            return None
        if left_s <= 0:
            return self.unavailable(RejectReason.DEADLINE_INFEASIBLE, "the deadline passed before its turn")
        if places >= self._most_waiting:
            return self.unavailable(RejectReason.QUEUE_FULL, "too many requests are waiting already")
        # Before anybody waited, answers are as far apart as those under way make them.
        interval_s = min(self._interval_s, self._limit.latency_s) or self._limit.latency_s / self._limit.value
        expected_s = (places + 1) * interval_s + self._limit.latency_s
        if _MARGIN * expected_s > left_s:
            return self.unavailable(RejectReason.DEADLINE_INFEASIBLE, "the deadline would pass in the queue")
        return None

    async def enter(self, partition: Partition, expires_s: float) -> Permit:
        """Return a permit, at once or after a wait; `expires_s` is when the answer is worth nothing any more.

        Raises Unavailable: QUEUE_FULL, or DEADLINE_INFEASIBLE where its turn would come too late.
        """
        queue = self._waiting[partition]
        if not queue and self._may_begin(partition):
            return self._permit(partition)
        left_s = expires_s - self._clock.monotonic_s()
        refusal = self.refusal(partition, left_s)
        if refusal is not None:
            raise refusal
        turn: asyncio.Future[Permit | None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        giving_up = asyncio.get_running_loop().call_later(left_s, _give_up, turn)
        try:
            permit = await turn
        except asyncio.CancelledError:
            given = turn.result() if turn.done() and not turn.cancelled() else None
            if given is not None:  # the caller went away just as its turn came
                given.leave(counts=False)
            raise
        finally:
            giving_up.cancel()
            if turn in queue:
                queue.remove(turn)
        if permit is None:
            raise self.unavailable(RejectReason.DEADLINE_INFEASIBLE, "the deadline passed in the queue")
        return permit

    def _may_begin(self, partition: Partition) -> bool:
        limit = self.value
        if partition is Partition.LIVE:
            return self.under_way < limit
        # The last place is kept for a live request, so that it need not wait for a batch one to leave. At the
        # limit, batch requests still have their share, so that live ones cannot starve them for ever.
        return self.under_way < limit - 1 or self._under_way[partition] < _BATCH_SHARE * limit

    def _permit(self, partition: Partition) -> Permit:
        self._under_way[partition] += 1
        return Permit(self, partition, self._clock.monotonic_s(), self.under_way)

    def _left(self, partition: Partition, began_s: float, under_way: int, counts: bool) -> None:
        now_s = self._clock.monotonic_s()
        self._under_way[partition] -= 1
        if counts:
            self._limit.sampled(now_s - began_s, under_way)
            self._note_interval(now_s)
        self._admit_next()

    def _note_interval(self, now_s: float) -> None:
        """Follow how long apart answers are while somebody waits: that is what a place in the queue costs."""
        if self._last_left_s is not None and self.waiting:
            # While one is under way the next answer is never further off than that one takes; a longer gap
            # was a stall of the machine, and says nothing of the next.
            interval_s = min(now_s - self._last_left_s, self._limit.latency_s)
            known_s = self._interval_s or interval_s
            self._interval_s = known_s + _OCCUPANCY * (interval_s - known_s)
        self._last_left_s = now_s

    def _admit_next(self) -> None:
        for partition in Partition:  # live ones first
            queue = self._waiting[partition]
            while queue and self._may_begin(partition):
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(self._permit(partition))

    def unavailable(self, reason: RejectReason, message: str) -> Unavailable:
        """Return a refusal that says when to ask again, not the same for all."""
        return Unavailable(reason, f"{message}; ask again later, or another instance", self._share(1.0, 3.0))


def _give_up(turn: asyncio.Future[Permit | None]) -> None:
    if not turn.done():
        turn.set_result(None)
