"""A page of memory that the supervisor and all workers see: who lives, how busy, how often replaced.

Each number is eight bytes that one process writes and the others read, so nothing needs a lock, and a worker
that hangs or is killed cannot keep anybody waiting. A worker's beat grows while its event loop turns.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections import Counter
from enum import IntEnum, StrEnum

__all__ = ["Board", "Cause", "Seat", "Standing"]


class Standing(IntEnum):
    """How a worker stands; the higher, the sooner it should get connections."""

    DOWN = 0
    DRAINING = 1
    NOT_READY = 2
    READY = 3


class Cause(StrEnum):
    """Why a worker was replaced; labels `rankd_worker_restarts_total`."""

    KILLED = "killed"
    SIGNAL = "signal"
    HUNG = "hung"
    EXITED = "exited"


_CAUSES = tuple(Cause)
_WORD = 8
_SEAT_WORDS = 8  # a cache line each
_BEAT, _STANDING, _CONNECTIONS, _FAILURES, _LAST_CAUSE = range(5)
_HEAD_WORDS = _SEAT_WORDS  # restarts by cause


class Seat:
    """One worker's numbers."""

    __slots__ = ("_at", "_words")

    def __init__(self, words: memoryview[int], at: int) -> None:
        """Look at the numbers that begin `at`."""
        self._words, self._at = words, at

    @property
    def beat(self) -> int:
        """Grows while the worker's event loop turns."""
        return self._words[self._at + _BEAT]

    @property
    def standing(self) -> Standing:
        """How the worker stands."""
        return Standing(self._words[self._at + _STANDING])

    @property
    def connections(self) -> int:
        """Connections it has open."""
        return self._words[self._at + _CONNECTIONS]

    @connections.setter
    def connections(self, number: int) -> None:
        self._words[self._at + _CONNECTIONS] = number

    @property
    def failures(self) -> int:
        """How often in a row it ended before it had lived for a while."""
        return self._words[self._at + _FAILURES]

    @property
    def last_cause(self) -> Cause:
        """Why it ended the last time, if it ever did."""
        return _CAUSES[self._words[self._at + _LAST_CAUSE]]

    def report(self, standing: Standing, connections: int) -> None:
        """Say how it stands, and that its loop turns; only the worker does."""
        self._words[self._at + _STANDING] = standing
        self.connections = connections
        self._words[self._at + _BEAT] += 1

    def clear(self) -> None:
        """Say that nobody sits here; only the supervisor does, for a worker that is gone."""
        for word in (_BEAT, _STANDING, _CONNECTIONS):
            self._words[self._at + word] = 0

    def failed(self, cause: Cause, times: int) -> None:
        """Note why the worker ended, and how often in a row it has."""
        self._words[self._at + _FAILURES] = times
        self._words[self._at + _LAST_CAUSE] = _CAUSES.index(cause)


class Board:
    """The page, with a seat for each worker."""

    def __init__(self, fd: int, workers: int) -> None:
        """Map the page behind a descriptor, which may be closed afterwards."""
        self._page = mmap.mmap(fd, _length(workers))
        self._words = memoryview(self._page).cast("Q")
        self.seats = tuple(Seat(self._words, _HEAD_WORDS + n * _SEAT_WORDS) for n in range(workers))

    @staticmethod
    def file(workers: int) -> int:
        """Make an empty page that has no name -> its descriptor."""
        with tempfile.TemporaryFile() as made:
            made.truncate(_length(workers))
            return os.dup(made.fileno())

    def count_restart(self, cause: Cause) -> None:
        """Count a worker that has to be replaced."""
        self._words[_CAUSES.index(cause)] += 1

    def restarts(self) -> dict[str, int]:
        """How many workers were replaced since the start, by cause."""
        return {cause.value: self._words[at] for at, cause in enumerate(_CAUSES)}

    def standings(self) -> dict[str, int]:
        """How many workers stand how."""
        counted = Counter(seat.standing for seat in self.seats)
        return {standing.name.lower(): counted[standing] for standing in Standing}

    def connections(self) -> list[int]:
        """Connections of each worker."""
        return [seat.connections for seat in self.seats]

    def missing(self) -> list[str]:
        """Say in words which workers are not ready."""
        return [
            f"worker {n}: {_in_words(seat)}"
            for n, seat in enumerate(self.seats)
            if seat.standing is not Standing.READY
        ]


def _in_words(seat: Seat) -> str:
    times = f" ({seat.last_cause.value} {seat.failures} times in a row)" if seat.failures else ""
    return f"{seat.standing.name.lower().replace('_', ' ')}{times}"


def _length(workers: int) -> int:
    return _WORD * (_HEAD_WORDS + workers * _SEAT_WORDS)
