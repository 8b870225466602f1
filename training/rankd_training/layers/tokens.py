"""Tokens with the number of rows they really need: one for all, one a user row, or one a candidate.

What depends on the user alone stays on R rows until a candidate's own tokens enter; then it is gathered by
`in_row`. Tokens of one row for all are parameters, and broadcasting does the rest.

Legend: R user rows, N candidates, n tokens, E width; "rows" is 1, R or N.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor, nn

__all__ = ["Group", "Rows", "Tokens", "joined", "learned", "lifted", "total"]


class Rows(IntEnum):
    """Whose rows tokens have; what is made of several has the highest."""

    SHARED = 0
    USER = 1
    CANDIDATE = 2


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens x [rows, n, E]; where some are padding, `present` [rows, n] is 0 there and so is x."""

    x: Tensor
    rows: Rows
    present: Tensor | None = None


Group = tuple[Tokens, ...]
"""Tokens that stand side by side, each part on the rows it needs."""


def lifted(tokens: Tokens, rows: Rows, row_N: Tensor) -> Tokens:
    """The same tokens on rows that go at least as far; shared ones broadcast by themselves."""
    if tokens.rows is not Rows.USER or rows is not Rows.CANDIDATE:
        return tokens
    present = None if tokens.present is None else tokens.present.index_select(0, row_N)
    return Tokens(tokens.x.index_select(0, row_N), rows, present)


def joined(group: Group, row_N: Tensor) -> Tokens:
    """Put a group's parts side by side on the rows of the part that needs most."""
    if len(group) == 1:
        return group[0]
    rows = max(part.rows for part in group)
    parts = [lifted(part, rows, row_N) for part in group]
    present = [part.present for part in parts if part.present is not None]
    return Tokens(
        torch.cat([part.x for part in parts], dim=1), rows, torch.cat(present, dim=1) if present else None
    )


def total(terms: Sequence[Tokens], row_N: Tensor) -> Tokens:
    """Add tokens of one shape on whatever rows."""
    rows = max(term.rows for term in terms)
    first, *others = [lifted(term, rows, row_N).x for term in terms]
    for other in others:
        first = first + other
    return Tokens(first, rows)


def learned(count: int, width: int, std: float | None) -> nn.Parameter:
    """Return tokens [count, E] that are parameters; they start as rows of an embedding table do."""
    tokens = nn.Parameter(torch.empty(count, width))
    if std is None:
        nn.init.xavier_uniform_(tokens)
    else:
        nn.init.normal_(tokens, std=std)
    return tokens
