"""Pairs of slots, each memorised, factorised or left out, or a mixture that learns which (OptInter).

Legend: S slots, P pairs, M pairs with a table of their own, F pairs with a product, D width of a pair;
"rows" is user rows or candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rankd_contract.pair_hash import HashedPair
from rankd_training.layers.pair_hash import PairHash

__all__ = ["FACTORISE", "MEMORISE", "METHODS", "NAIVE", "Pair", "PairGroup"]

MEMORISE, FACTORISE, NAIVE = METHODS = ("memorise", "factorise", "naive")
_IMPOSSIBLE = -1e4  # a logit that no learning brings back


@dataclass(frozen=True, slots=True)
class Pair:
    """Two slots, by their place on their side; with their ids where both have exactly one.

    Attributes:
        name: of both fields, `left*right`.
        left: slot of the left side.
        right: slot of the right side, which may be the same side.
        ids: what hashing needs; None where a slot is a list or a number, which cannot be memorised.
        method: one of METHODS; None learns which.
    """

    name: str
    left: int
    right: int
    ids: HashedPair | None
    method: str | None = None


class PairGroup(nn.Module):
    """Pairs whose slots have the same rows. All of them have a method, or none has.

    Args:
        pairs: at least one.
        width: D.
        std: initial standard deviation of the table.
    """

    left_M: Tensor
    right_M: Tensor
    left_F: Tensor
    right_F: Tensor

    def __init__(self, pairs: Sequence[Pair], width: int, *, std: float) -> None:
        super().__init__()
        searching = pairs[0].method is None
        # While searching, those with a table come first, so that both kinds can be added up.
        self.pairs = tuple(sorted(pairs, key=lambda pair: pair.ids is None)) if searching else tuple(pairs)
        kept = {method: [p for p in self.pairs if searching or p.method == method] for method in METHODS}
        memorised = [(p, p.ids) for p in kept[MEMORISE] if p.ids is not None]
        factorised = kept[FACTORISE]
        self.num_memorised, self.num_factorised = len(memorised), len(factorised)
        num_out = len(self.pairs) if searching else len(memorised) + len(factorised)
        self.out_width = num_out * width
        places = {
            "left_M": [p.left for p, _ in memorised],
            "right_M": [p.right for p, _ in memorised],
            "left_F": [p.left for p in factorised],
            "right_F": [p.right for p in factorised],
        }
        for name, values in places.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.int64), persistent=False)
        self.hash = PairHash([ids for _, ids in memorised]) if memorised else None
        self.table = nn.Embedding(self.hash.num_rows, width) if self.hash is not None else None
        if self.table is not None:
            nn.init.normal_(self.table.weight, std=std)
        self.choice_P3 = nn.Parameter(self._first_choice()) if searching else None

    def forward(self, sides: tuple[Tensor, Tensor], ids: tuple[Tensor, Tensor], heat: Tensor) -> Tensor:
        """-> [rows, out width].

        Args:
            sides: the factors of left and right slots, [rows, S, D] each.
            ids: of left and right slots, [rows, S] each, int64; any number where a slot has not exactly one.
            heat: temperature of the softmax over methods, while searching.
        """
        memorised = factorised = None
        if self.hash is not None and self.table is not None:
            row_M = self.hash(ids[0].index_select(1, self.left_M), ids[1].index_select(1, self.right_M))
            memorised = self.table(row_M)
        if self.num_factorised:
            factorised = sides[0].index_select(1, self.left_F) * sides[1].index_select(1, self.right_F)
        if self.choice_P3 is None:
            parts = [part for part in (memorised, factorised) if part is not None]
            made = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        else:
            assert factorised is not None
            share_P3 = torch.softmax(self.choice_P3 / heat, dim=1)
            made = factorised * share_P3[:, 1:2]  # what is naive adds zeros
            if memorised is not None:
                mixed = made[:, : self.num_memorised] + memorised * share_P3[: self.num_memorised, :1]
                made = torch.cat([mixed, made[:, self.num_memorised :]], dim=1)
        return made.reshape(-1, self.out_width)

    def chosen(self) -> dict[str, str]:
        """By pair, the method that it has or now prefers."""
        if self.choice_P3 is None:
            return {pair.name: pair.method or NAIVE for pair in self.pairs}
        best = self.choice_P3.detach().argmax(1).tolist()
        return {pair.name: METHODS[at] for pair, at in zip(self.pairs, best, strict=True)}

    def shares(self, heat: Tensor) -> dict[str, dict[str, float]]:
        """While searching, by pair how much it takes of each of METHODS; else nothing."""
        if self.choice_P3 is None:
            return {}
        shares = torch.softmax(self.choice_P3.detach() / heat, dim=1).tolist()
        return {
            pair.name: dict(zip(METHODS, share, strict=True))
            for pair, share in zip(self.pairs, shares, strict=True)
        }

    def _first_choice(self) -> Tensor:
        choice_P3 = torch.zeros(len(self.pairs), 3)
        choice_P3[self.num_memorised :, 0] = _IMPOSSIBLE
        return choice_P3
