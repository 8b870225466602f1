"""Cross attention with its projections multiplied out: what serves where the queries are the fewer tokens.

(X Wq)(Y Wk)^T = (X Wq Wk^T) Y^T and A (Y Wv) = (A Y) Wv, a head at a time: a few queries are projected
instead of all keys and values, and what the attention's output is multiplied with next is in the second
matrix too. Keys that stand on one row for all stay projected: they are constants.

Over gated tokens y = LN( x g + b ) the scores and the sums come from products with x itself. With m the mean
and v the variance of a token's numbers,  m = x (g / E) + mean b,
v = x^2 (g^2 / E) + x (2 g b / E) + mean b^2 - m^2, all are matrix products over E: nothing of n E numbers a
candidate is written but x itself.

Legend: n tokens, k queries times heads, H heads, E width; "rows" is 1, R or N.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rankd_training.layers.attention import Aggregation, CrossAttention
from rankd_training.layers.gated import GatedTokens
from rankd_training.layers.tokens import Group, Rows, Tokens, joined, lifted

__all__ = ["AbsorbedAttention", "absorb"]

# Finite, so that a softmax over padding alone stays finite; its exponential is exactly zero beside any score.
_ABSENT = 1e4


class AbsorbedAttention(nn.Module):
    """Computes `attention`, then a product with `after` [E, E'] where there is one."""

    in_EK: Tensor
    out_KO: Tensor

    def __init__(self, attention: CrossAttention, after: Tensor | None) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        width, dtype = attention.query.weight.shape[1], attention.query.weight.dtype
        # A linear layer's weight is [out, in]; a head is some of its outputs.
        query, key, value = (
            m.weight.detach().double().reshape(self.num_heads, -1, width)
            for m in (attention.query, attention.key, attention.value)
        )
        scores_HEE = query.transpose(1, 2) @ key / math.sqrt(attention.head_width)
        self.register_buffer("in_EK", scores_HEE.transpose(0, 1).reshape(width, -1).to(dtype))
        said_HEd = value.transpose(1, 2)
        # A head's numbers meet its rows of what comes after: without any, they stand in their place.
        after_KO = torch.eye(width).double() if after is None else after.detach().double()
        said_HEO = said_HEd @ after_KO.reshape(self.num_heads, -1, after_KO.shape[1])
        self.register_buffer("out_KO", said_HEO.reshape(self.num_heads * width, -1).to(dtype))
        self.width = width

    def forward(self, query: Tokens, source: Group, row_N: Tensor) -> Tokens:
        """[rows, n, E] -> [rows of whichever needs more, n, E']."""
        (*_, last) = source
        at = last if isinstance(last, GatedTokens) else joined(source, row_N)
        rows = max(query.rows, at.rows)
        if isinstance(at, GatedTokens):
            return self._over_gated(query, at, rows, row_N)
        if at.rows is Rows.SHARED and self.num_heads == 1:
            key_En, value_nO = torch.matmul(self.in_EK, at.x[0].T), torch.matmul(at.x[0], self.out_KO)
            score = torch.matmul(query.x, key_En)
            return Tokens(torch.matmul(torch.softmax(score, -1), value_nO), rows)
        y = lifted(Tokens(at.x, at.rows, at.present), rows, row_N)
        score = torch.matmul(self._queries(query, self.in_EK, rows, row_N), y.x.transpose(1, 2))
        p = torch.softmax(_masked(score, y.present), -1)
        return self._answer(torch.matmul(p, y.x), self.out_KO, rows)

    def _over_gated(self, query: Tokens, at: GatedTokens, rows: Rows, row_N: Tensor) -> Tokens:
        x = lifted(Tokens(at.x, at.own_rows, at.present), rows, row_N)
        scale = lifted(Tokens(at.scale, at.scale_rows), rows, row_N).x
        if at.norm is None or at.shift is None:
            q = self._queries(query, self.in_EK, rows, row_N)
            p = torch.softmax(_masked(torch.matmul(q * scale, x.x.transpose(1, 2)), x.present), -1)
            return self._answer(torch.matmul(p, x.x) * scale, self.out_KO, rows)

        norm = at.norm
        shift = lifted(Tokens(at.shift, at.scale_rows), rows, row_N).x
        square = lifted(Tokens(at.x * at.x, at.own_rows), rows, row_N).x
        # LN takes the mean off and scales: so do matrices. Its bias adds the same to all scores of a query.
        in_EK = _centred(self.in_EK.reshape(-1, self.num_heads, self.width) * norm.weight).flatten(1)
        q = self._queries(query, in_EK, rows, row_N)
        # Rows of one product: what the queries take, the mean, and the mixed term of the variance.
        share = scale * (1 / self.width)
        left = torch.cat([q * scale, share, 2.0 * share * shift], dim=1)
        taken, mean, mixed = torch.split(torch.matmul(left, x.x.transpose(1, 2)), [q.shape[1], 1, 1], dim=1)
        mean = mean + shift.mean(2, keepdim=True)
        second = torch.matmul(share * scale, square.transpose(1, 2)) + mixed
        variance = second + ((shift * shift).mean(2, keepdim=True) - mean * mean)
        inverse = torch.rsqrt(torch.relu(variance) + norm.eps)
        score = (taken + (q * shift).sum(2, keepdim=True)) * inverse
        p = torch.softmax(_masked(score, x.present), -1) * inverse
        sums = torch.matmul(p, x.x) * scale + p.sum(2, keepdim=True) * shift
        out_HEO = self.out_KO.reshape(self.num_heads, self.width, -1)
        centred_HEO = _centred((norm.weight.unsqueeze(1) * out_HEO).transpose(1, 2)).transpose(1, 2)
        said = self._answer(sums, centred_HEO.flatten(0, 1), rows).x + torch.matmul(norm.bias, out_HEO).sum(0)
        if x.present is not None:  # padding is zero after its gate, so where all is padding nothing is said
            said = said * x.present.amax(1, keepdim=True).unsqueeze(2)
        return Tokens(said, rows)

    def _queries(self, query: Tokens, in_EK: Tensor, rows: Rows, row_N: Tensor) -> Tensor:
        """-> [rows, k, E], a query's heads one after the other."""
        projected = torch.matmul(query.x, in_EK).reshape(-1, query.x.shape[1] * self.num_heads, self.width)
        return lifted(Tokens(projected, query.rows), rows, row_N).x

    def _answer(self, sums: Tensor, out_KO: Tensor, rows: Rows) -> Tokens:
        heads = sums.reshape(-1, sums.shape[1] // self.num_heads, self.num_heads * self.width)
        return Tokens(torch.matmul(heads, out_KO), rows)


def _masked(score: Tensor, present: Tensor | None) -> Tensor:
    return score if present is None else score + ((present - 1.0) * _ABSENT).unsqueeze(1)


def _centred(weight: Tensor) -> Tensor:
    """Take the mean off the last axis."""
    return weight - weight.mean(-1, keepdim=True)


def absorb(flow: Aggregation) -> None:
    """Put absorbed attentions, which know the fusion too, into the place of an aggregation's."""
    pieces: list[Tensor | None] = [None] * len(flow.attentions)
    if flow.fusion_IO is not None:
        pieces = list(torch.split(flow.fusion_IO, flow.width))
        flow.fusion_IO = None
    attentions: list[nn.Module] = []
    for attention, piece in zip(flow.attentions, pieces, strict=True):
        assert isinstance(attention, CrossAttention)
        attentions.append(AbsorbedAttention(attention, piece))
    flow.attentions = nn.ModuleList(attentions)
