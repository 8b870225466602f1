"""The first summary tokens ("proxies", "hubs") of a group: from all fields, or one a behaviour sequence.

Legend: R user rows, N candidates, M tokens of fields, h hubs, L positions, F sequences, E width; "rows" is
R or N.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rankd_training.layers.heads import Tower, linear
from rankd_training.layers.split import SplitLinear
from rankd_training.layers.tokens import Group, Rows, Tokens, joined, learned

__all__ = ["CategoricalHubs", "SequenceHubs", "Sides"]


@dataclass(frozen=True, slots=True)
class Sides:
    """How many tokens of a group are the user's and how many the item's."""

    user: int
    item: int


class CategoricalHubs(nn.Module):
    """C~ = reshape( MLP( flatten C ) ), M E numbers -> h E numbers; the user part once a user row."""

    def __init__(self, width: int, num_tokens: Sides, num_hubs: int, *, hidden: Sequence[int]) -> None:
        super().__init__()
        self.width, self.num_hubs = width, num_hubs
        self.user_width, self.item_width = num_tokens.user * width, num_tokens.item * width
        first, *others = [*hidden, num_hubs * width]
        self.first: nn.Module
        if self.user_width and self.item_width:
            self.first = SplitLinear(self.user_width, self.item_width, first)
        else:
            self.first = linear(self.user_width + self.item_width, first)
        self.inner = Tower(first, others[:-1], dropout=0.0)
        self.last = linear(self.inner.out_width, others[-1]) if others else None

    def forward(self, group: Group, row_N: Tensor) -> Tokens:
        """The fields' tokens, user's part first -> [rows, h, E]."""
        rows = max(part.rows for part in group)
        flat = [
            part.x.reshape(-1, self.user_width if part.rows is Rows.USER else self.item_width)
            for part in group
        ]
        x = self.first(*flat, row_N) if len(flat) > 1 else self.first(*flat)
        if self.last is not None:
            x = self.last(self.inner(torch.relu(x)))
        return Tokens(x.reshape(-1, self.num_hubs, self.width), rows)


class SequenceHubs(nn.Module):
    """One hub a sequence, zero where all of it is padding, then `num_extra` learned ones.

    Args:
        width: E.
        lengths: of the sequences of each part of the group.
        prototypes: the mean of an MLP of the sequence's own over its positions; otherwise the sum of one
            projection that all sequences share.
        num_extra: hubs that start alike for everyone.
        std: of the extra hubs' initial values.
    """

    def __init__(
        self,
        width: int,
        lengths: Sequence[Sequence[int]],
        *,
        prototypes: bool,
        num_extra: int,
        std: float | None,
    ) -> None:
        super().__init__()
        self.lengths = [list(of_part) for of_part in lengths]
        num_sequences = sum(map(len, lengths))
        self.num_hubs = num_sequences + num_extra
        self.prototypes = nn.ModuleList(_prototype(width) for _ in range(num_sequences * prototypes))
        self.project = None if prototypes else nn.Linear(width, width, bias=False)
        if self.project is not None:
            nn.init.xavier_uniform_(self.project.weight)
        self.extra_XE = learned(num_extra, width, std) if num_extra else None

    def forward(self, group: Group, row_N: Tensor) -> Tokens:
        """The sequences' tokens -> [rows, F + extra, E]."""
        parts, at = [], 0
        for part, lengths in zip(group, self.lengths, strict=True):
            assert part.present is not None
            hubs = []
            for x, present in zip(
                torch.split(part.x, lengths, 1), torch.split(part.present, lengths, 1), strict=True
            ):
                hubs.append(self._hub(at, x, present))
                at += 1
            parts.append(Tokens(hubs[0] if len(hubs) == 1 else torch.cat(hubs, dim=1), part.rows))
        found = joined(tuple(parts), row_N)
        if self.extra_XE is None:
            return found
        extra = self.extra_XE + torch.zeros_like(found.x[:, :1])  # as many rows, whatever their number
        return Tokens(torch.cat([found.x, extra], dim=1), found.rows)

    def _hub(self, at: int, x: Tensor, present: Tensor) -> Tensor:
        """[rows, L, E] -> [rows, 1, E]."""
        if self.project is not None:
            hub: Tensor = self.project(x.sum(1, keepdim=True))  # linear: the sum of projections
            return hub
        share = present / present.sum(1, keepdim=True).clamp(min=1.0)
        return torch.matmul(share.unsqueeze(1), self.prototypes[at](x))


def _prototype(width: int) -> nn.Module:
    return nn.Sequential(linear(width, width), nn.ReLU(), linear(width, width))
