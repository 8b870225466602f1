"""DCN-V2's cross layer (arXiv 2008.13535, section 3.2): x' = x0 * (x W + b) + x.

The first layer reads x0 itself, which is linear in the two sides, so its user part is split off.

Legend: N candidates, D width of all slots together, K rank.
"""

from __future__ import annotations

from torch import Tensor, nn

from rankd_training.layers.heads import linear
from rankd_training.layers.split import SplitLinear

__all__ = ["CrossNetwork"]


class CrossNetwork(nn.Module):
    """Stacked cross layers. `rank` None is the full matrix of equation 1, a number is U V of equation 2."""

    def __init__(self, user_width: int, item_width: int, num_layers: int, *, rank: int | None) -> None:
        super().__init__()
        width = user_width + item_width
        self.first = SplitLinear(user_width, item_width, width if rank is None else rank, bias=rank is None)
        self.first_up = None if rank is None else linear(rank, width)
        self.rest = nn.ModuleList(_matrix(width, rank) for _ in range(num_layers - 1))

    def forward(self, user_RD: Tensor, item_ND: Tensor, x0_ND: Tensor, row_N: Tensor) -> Tensor:
        """Both sides, and x0 [N, D], which is the two of them for every candidate -> [N, D]."""
        crossed_ND: Tensor = self.first(user_RD, item_ND, row_N)
        if self.first_up is not None:
            crossed_ND = self.first_up(crossed_ND)
        x_ND: Tensor = x0_ND * crossed_ND + x0_ND
        for matrix in self.rest:
            x_ND = x0_ND * matrix(x_ND) + x_ND
        return x_ND


def _matrix(width: int, rank: int | None) -> nn.Module:
    if rank is None:
        return linear(width, width)
    down = nn.Linear(width, rank, bias=False)
    nn.init.xavier_uniform_(down.weight)
    return nn.Sequential(down, linear(rank, width))
