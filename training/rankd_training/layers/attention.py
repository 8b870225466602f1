"""CA(Q, K, V) = softmax( Q Wq (K Wk)^T / sqrt(d_k) ) (V Wv), and how tokens take in what several sources say.

No projection has a bias, so padding, which is zero, adds exactly nothing, even where all is padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rankd_training.layers.tokens import Group, Tokens, joined, lifted, total

__all__ = ["Aggregation", "CrossAttention"]

# Finite, so that a softmax over padding alone stays finite; its exponential is exactly zero beside any score.
_ABSENT = 1e4


class CrossAttention(nn.Module):
    """Queries of one group over keys and values of another. Keys and values are made on the source's rows."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_width = num_heads, width // num_heads
        self.query, self.key, self.value = _matrix(width), _matrix(width), _matrix(width)

    def forward(self, query: Tokens, source: Group, row_N: Tensor) -> Tokens:
        """[rows, n, E] -> [rows of whichever needs more, n, E]."""
        key = joined(tuple(Tokens(self.key(part.x), part.rows, part.present) for part in source), row_N)
        value = joined(tuple(Tokens(self.value(part.x), part.rows) for part in source), row_N)
        rows = max(query.rows, key.rows)
        q = self._heads(lifted(Tokens(self.query(query.x), query.rows), rows, row_N).x)
        at = lifted(key, rows, row_N)
        score = torch.matmul(q, self._heads(at.x).transpose(-1, -2)) * (1 / math.sqrt(self.head_width))
        if at.present is not None:
            absent = (at.present - 1.0) * _ABSENT
            score = score + (absent.unsqueeze(1) if self.num_heads == 1 else absent.unsqueeze(1).unsqueeze(1))
        seen = torch.matmul(torch.softmax(score, dim=-1), self._heads(lifted(value, rows, row_N).x))
        return Tokens(self._merged(seen), rows)

    def _heads(self, x: Tensor) -> Tensor:
        """[rows, n, E] -> [rows, H, n, E / H]; one head needs no axis."""
        if self.num_heads == 1:
            return x
        return x.reshape(-1, x.shape[1], self.num_heads, self.head_width).transpose(1, 2)

    def _merged(self, x: Tensor) -> Tensor:
        if self.num_heads == 1:
            return x
        return x.transpose(1, 2).reshape(-1, x.shape[2], self.num_heads * self.head_width)


class Aggregation(nn.Module):
    """Tokens query each source on its own: x' = LN( x + sum of what they say ).

    Args:
        width: E.
        num_sources: groups that are queried, each with an attention of its own.
        num_heads: of each attention; a divisor of `width`.
        fused: what the sources say is concatenated and goes through one linear layer, not added as it is.
        residual: False gives the sum alone, with neither x nor LN.
    """

    def __init__(
        self, width: int, num_sources: int, *, num_heads: int, fused: bool, residual: bool = True
    ) -> None:
        super().__init__()
        self.width = width
        self.attentions = nn.ModuleList(CrossAttention(width, num_heads) for _ in range(num_sources))
        self.fusion_IO = nn.Parameter(torch.empty(num_sources * width, width)) if fused else None
        self.fusion_O = nn.Parameter(torch.zeros(width)) if fused else None
        if self.fusion_IO is not None:
            nn.init.xavier_uniform_(self.fusion_IO)
        self.norm = nn.LayerNorm(width) if residual else None

    def forward(self, query: Tokens, sources: Sequence[Group], row_N: Tensor) -> Tokens:
        """[rows, n, E] -> [rows of whichever needs most, n, E]."""
        said: list[Tokens] = [
            attention(query, source, row_N)
            for attention, source in zip(self.attentions, sources, strict=True)
        ]
        if self.fusion_IO is not None:
            # A linear layer over a concatenation is a sum of one a part, each on the rows it needs.
            pieces = torch.split(self.fusion_IO, self.width)
            said = [Tokens(torch.matmul(s.x, w), s.rows) for s, w in zip(said, pieces, strict=True)]
        updated = total(said if self.norm is None else [query, *said], row_N)
        x = updated.x if self.fusion_O is None else updated.x + self.fusion_O
        return Tokens(x if self.norm is None else self.norm(x), updated.rows)


def _matrix(width: int) -> nn.Linear:
    layer = nn.Linear(width, width, bias=False)
    nn.init.xavier_uniform_(layer.weight)
    return layer
