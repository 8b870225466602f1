"""A feed-forward network over all slots; the user's part of its first layer is computed once per user row.

Legend: R user rows, N candidates, S slots, E width of a slot, I numbers of a side, H width of the last layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rankd_training.errors import SettingError
from rankd_training.layers.embedding import FeatureEmbedding
from rankd_training.layers.heads import Tower
from rankd_training.layers.split import SplitLinear, flat

__all__ = ["DeepNetwork", "side_widths"]


class DeepNetwork(nn.Module):
    """(Linear, ReLU, Dropout) for each of `hidden`, at least one, over all slots.

    Raises:
        SettingError: there is no hidden width.
    """

    def __init__(self, user_width: int, item_width: int, hidden: Sequence[int], *, dropout: float) -> None:
        super().__init__()
        if not hidden:
            raise SettingError(f"hidden {tuple(hidden)}: expected one width or more")
        self.first = SplitLinear(user_width, item_width, hidden[0])
        self.dropout = nn.Dropout(dropout)
        self.tower = Tower(hidden[0], hidden[1:], dropout=dropout)
        self.out_width = self.tower.out_width

    def forward(self, user_RSE: Tensor, item_NSE: Tensor, row_N: Tensor) -> Tensor:
        """Slots of both sides -> [N, H]."""
        first_NH = self.dropout(torch.relu(self.first(flat(user_RSE), flat(item_NSE), row_N)))
        out_NH: Tensor = self.tower(first_NH)
        return out_NH


def side_widths(embedding: FeatureEmbedding, width: int | None = None) -> tuple[int, int]:
    """Numbers of the user's side and of the item's side, laid out flat; `width` replaces the embedding's."""
    width = embedding.width if width is None else width
    return embedding.num_user_slots * width, embedding.num_item_slots * width
