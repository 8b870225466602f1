"""Gates by which a few summary tokens change every token of their group, at the cost of one vector.

Both start near a known value: the last layer's weights are small, so its bias decides.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rankd_training.layers.heads import Tower, linear
from rankd_training.layers.tokens import Group, Tokens, joined, lifted

__all__ = ["BroadcastGate", "ProxyGate"]

# Share of Xavier's weights that a gate's last layer starts with: it moves gates by hundredths, and learns.
_START = 0.1


class ProxyGate(nn.Module):
    """PGU(X, P) = X * sigmoid( MLP( flatten P ) ): one gate in R^E over all tokens of X."""

    def __init__(self, width: int, num_hubs: int, *, num_hidden: int, bias: float) -> None:
        super().__init__()
        self.flat_width = width * num_hubs
        self.inner, self.last = _network(self.flat_width, width, width, num_hidden, bias)

    def forward(self, group: Group, hubs: Tokens, row_N: Tensor) -> Group:
        """Tokens [rows, n, E] and hubs [rows, h, E] -> gated tokens; padding stays zero."""
        gate = torch.sigmoid(self.last(self.inner(hubs.x.reshape(-1, self.flat_width))))
        tokens, gates = _together(group, Tokens(gate.unsqueeze(1), hubs.rows), row_N)
        return (Tokens(tokens.x * gates.x, max(tokens.rows, gates.rows), tokens.present),)


class BroadcastGate(nn.Module):
    """x' = LN( x + x * sigmoid(alpha) + beta ), [alpha, beta] = MLP( flatten hubs ), for every token x."""

    def __init__(self, width: int, num_hubs: int, *, num_hidden: int, bias: float) -> None:
        super().__init__()
        self.width, self.flat_width = width, width * num_hubs
        self.inner, self.last = _network(self.flat_width, width, 2 * width, num_hidden, 0.0)
        with torch.no_grad():
            self.last.bias[:width] = bias
        self.norm = nn.LayerNorm(width)

    def forward(self, group: Group, hubs: Tokens, row_N: Tensor) -> Group:
        """Tokens [rows, n, E] and hubs [rows, h, E] -> updated tokens; padding stays zero."""
        both = self.last(self.inner(hubs.x.reshape(-1, self.flat_width))).unsqueeze(1)
        tokens, moved = _together(group, Tokens(both, hubs.rows), row_N)
        alpha, beta = torch.split(moved.x, self.width, dim=2)
        x = self.norm(tokens.x + tokens.x * torch.sigmoid(alpha) + beta)
        if tokens.present is not None:
            x = x * tokens.present.unsqueeze(2)
        return (Tokens(x, max(tokens.rows, moved.rows), tokens.present),)


def _network(
    in_width: int, width: int, out_width: int, num_hidden: int, bias: float
) -> tuple[Tower, nn.Linear]:
    inner = Tower(in_width, (width,) * num_hidden, dropout=0.0)
    last = linear(inner.out_width, out_width)
    with torch.no_grad():
        last.weight.mul_(_START)
        last.bias.fill_(bias)
    return inner, last


def _together(group: Group, other: Tokens, row_N: Tensor) -> tuple[Tokens, Tokens]:
    tokens = joined(group, row_N)
    rows = max(tokens.rows, other.rows)
    return lifted(tokens, rows, row_N), lifted(other, rows, row_N)
