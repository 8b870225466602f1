"""The processes of one run, where it has several: each learns from its share of every batch.

Started by `torchrun`, which tells them where to meet, or by Ray, which has them meet. All processes hold the
same weights, see the same order of rows and take the same decisions; the first one writes.

Legend: N rows of a batch, n places that a batch reads in a table, E width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

__all__ = ["ALONE", "Ranks", "joined"]

IN_TURN = 1 << 22  # bytes


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among `count`. With one process nothing is ever sent."""

    index: int = 0
    count: int = 1

    @property
    def many(self) -> bool:
        """Whether there is anybody to talk to."""
        return self.count > 1

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.index == 0

    def meet(self) -> None:
        """Wait until every process has come this far."""
        if self.many:
            distributed.barrier()

    def share(self, of_N: Tensor) -> Tensor:
        """Return this process's share of a batch: neighbours, as many as any other's or one fewer."""
        return of_N.tensor_split(self.count)[self.index]

    def largest(self, rows: int) -> int:
        """Return how many of some rows the largest share has."""
        return -(-rows // self.count)

    def same(self, of_first: Tensor) -> Tensor:
        """Return the first process's tensor; all give one of equal shape and type."""
        if self.many:
            distributed.broadcast(of_first, 0)
        return of_first

    def summed(self, number: Tensor) -> Tensor:
        """Return the sum of all processes' numbers."""
        if self.many:
            distributed.all_reduce(number)
        return number

    def add_up(self, gradients: Iterable[Tensor]) -> None:
        """Replace gradients by their sums over all processes, in one message."""
        parts = list(gradients)
        if not self.many or not parts:
            return
        flat = torch.cat([part.reshape(-1) for part in parts])
        distributed.all_reduce(flat)
        sums = torch.split(flat, [part.numel() for part in parts])
        for part, summed in zip(parts, sums, strict=True):
            part.copy_(summed.view_as(part))

    def join(self, of_share: Tensor) -> Tensor:
        """Return every process's rows one after the other; they may differ in number only."""
        if not self.many:
            return of_share
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
        distributed.all_gather(sizes, torch.tensor([len(of_share)]))
        most = int(max(sizes))
        padded = of_share.new_zeros(most, *of_share.shape[1:])
        padded[: len(of_share)] = of_share
        gathered = [torch.empty_like(padded) for _ in range(self.count)]
        distributed.all_gather(gathered, padded)
        return torch.cat([part[: int(size)] for part, size in zip(gathered, sizes, strict=True)])

    def in_turn(self, held_H: Tensor) -> Iterator[Tensor]:
        """Give the first process the rows of all, piece by piece, in the processes' order; the others send.

        All walk through it at once. Rows are equal in shape and type, their numbers may differ.
        """
        held_H = held_H.detach()
        counts = self.join(torch.tensor([len(held_H)]))
        size = max(1, IN_TURN // max(1, held_H[:1].nbytes))
        if not self.first:
            for piece in torch.split(held_H, size) if len(held_H) else ():
                distributed.send(piece.contiguous(), 0)
            return
        yield from torch.split(held_H, size)
        for sender, count in enumerate(counts.tolist()[1:], start=1):
            for at in range(0, count, size):
                piece = held_H.new_empty(min(size, count - at), *held_H.shape[1:])
                distributed.recv(piece, sender)
                yield piece

    def join_rows(self, row_n: Tensor, grad_nE: Tensor) -> tuple[Tensor, Tensor]:
        """Return all processes' rows of a table and their gradients."""
        return self.join(row_n), self.join(grad_nE)


ALONE = Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Meet the other processes over gloo, where there are any."""
    began_here = not distributed.is_initialized()
    if began_here and not distributed.is_torchelastic_launched():
        yield ALONE
        return
    if began_here:
        distributed.init_process_group("gloo")
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    finally:
        if began_here:
            distributed.destroy_process_group()
