"""Tokens whose gates are kept beside them, for an attention that never writes the gated tokens down.

A gate is one vector a candidate, its tokens are many and mostly the user's: gating them makes a copy of all
tokens a candidate. What attends to them needs products with them only, and those can be had of the plain
tokens (`absorbed.py`).

Legend: n tokens, E width; "rows" is 1, R or N.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rankd_training.layers.broadcast import BroadcastGate, ProxyGate
from rankd_training.layers.tokens import Group, Rows, Tokens, joined

__all__ = ["GatedTokens", "KeptGate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedTokens(Tokens):
    """y = x * scale, or LN( x * scale + shift ); zero where a token is padding.

    Attributes:
        own_rows: rows of x and `present`; `rows` is what the gated tokens would need.
        scale: [gate rows, 1, E].
        scale_rows: rows of scale and shift.
        shift: [gate rows, 1, E]; with it comes the norm.
        norm: LN.
    """

    own_rows: Rows
    scale: Tensor
    scale_rows: Rows
    shift: Tensor | None = None
    norm: nn.LayerNorm | None = field(default=None, repr=False)


class KeptGate(nn.Module):
    """In the place of a gate: computes what it would multiply and add, and does neither."""

    def __init__(self, gate: ProxyGate | BroadcastGate) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, group: Group, hubs: Tokens, row_N: Tensor) -> Group:
        """As the gate's, but the tokens are not gated yet."""
        tokens, gate = joined(group, row_N), self.gate
        both = gate.last(gate.inner(hubs.x.reshape(-1, gate.flat_width))).unsqueeze(1)
        rows = max(tokens.rows, hubs.rows)
        if isinstance(gate, ProxyGate):
            scale, shift, norm = torch.sigmoid(both), None, None
        else:
            alpha, shift = torch.split(both, gate.width, dim=2)
            scale, norm = 1.0 + torch.sigmoid(alpha), gate.norm
        kept = GatedTokens(
            x=tokens.x,
            rows=rows,
            present=tokens.present,
            own_rows=tokens.rows,
            scale=scale,
            scale_rows=hubs.rows,
            shift=shift,
            norm=norm,
        )
        return (kept,)
