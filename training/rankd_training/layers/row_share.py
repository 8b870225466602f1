"""Which rows of a table a process holds where several share it, and a draw that all of them agree on.

Nothing here talks to another process: a model that is built within `sharing` holds some rows of its table,
drawn as the whole table would be, and is told later how to read the others.

Legend: R rows of a table, P rows of a piece of it, E width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["WHOLE", "RowShare", "current", "drawn", "sharing"]

PIECE = 1 << 20  # numbers
GROUP = 16  # numbers that torch draws from a normal distribution together


@dataclass(frozen=True, slots=True)
class RowShare:
    """The part of process `index` among `count`: neighbouring rows, as many as any other's or fewer."""

    index: int = 0
    count: int = 1

    def of(self, num_rows: int) -> slice:
        """Return the rows held here; the last processes may hold fewer, or none."""
        most = -(-num_rows // self.count)
        return slice(min(self.index * most, num_rows), min((self.index + 1) * most, num_rows))


WHOLE = RowShare()
_share: ContextVar[RowShare] = ContextVar("share", default=WHOLE)


def current() -> RowShare:
    """Return what tables that are made now hold."""
    return _share.get()


@contextmanager
def sharing(share: RowShare) -> Iterator[None]:
    """Within it models are built whose tables hold `share` of their rows."""
    token = _share.set(share)
    try:
        yield
    finally:
        _share.reset(token)


def drawn(num_rows: int, width: int, fill: Callable[[Tensor], object]) -> Iterator[tuple[int, Tensor]]:
    """Draw [R, E] piece by piece -> the first row of each piece, and the piece [P, E], which is then reused.

    Pieces end where `fill` on the whole, by torch's default generator on a CPU, would have drawn the same.
    """
    most = GROUP * max(1, PIECE // (GROUP * width))
    room = torch.empty(min(num_rows, most + GROUP), width)
    at = 0
    while at < num_rows:
        # What is left is never less than torch draws together.
        stop = num_rows if num_rows - at < most + GROUP else at + most
        piece_PE = room[: stop - at]
        fill(piece_PE)
        yield at, piece_PE
        at = stop
