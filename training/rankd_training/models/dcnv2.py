"""DCN-V2 (Wang et al., 2021, arXiv 2008.13535): explicit crosses of bounded degree beside a deep network.

The user's part of the first cross layer and of the first deep layer is computed once per user row; the
paper's mixture of low-rank experts (equation 3) is not implemented.

Legend: R user rows, N candidates, S slots, E width of a slot, D = S E, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import ROW
from rankd_training.errors import SettingError
from rankd_training.layers.crossing import CrossNetwork
from rankd_training.layers.embedding import FeatureEmbedding
from rankd_training.layers.heads import Tower, linear
from rankd_training.layers.split import SplitLinear, flat, join_sides

__all__ = ["DCNv2", "DCNv2Config"]


@dataclass(frozen=True, slots=True)
class DCNv2Config:
    """The paper searches sizes per data set; these defaults are the public baseline MLCC is compared with.

    Attributes:
        embedding_width: E, numbers a slot.
        cross_layers: cross layers; the result has degree cross_layers + 1.
        rank: None for full matrices (equation 1), else the rank of U V (equation 2).
        structure: `parallel` (figure 1b) joins cross and deep, `stacked` (figure 1a) feeds cross into deep.
        hidden: widths of the deep network; at least one.
        mix: widths of a tower over the joined result; the paper has none, the public baseline four layers.
        dropout: share of units dropped in both towers. Ours; the paper does not state it.
        embedding_std: initial standard deviation of embeddings, None for Xavier-uniform. Ours, as in MLCC.
    """

    embedding_width: int = 16
    cross_layers: int = 2
    rank: int | None = None
    structure: Literal["parallel", "stacked"] = "parallel"
    hidden: tuple[int, ...] = (128, 64)
    mix: tuple[int, ...] = (256, 128, 64, 32)
    dropout: float = 0.2
    embedding_std: float | None = 0.01


class DCNv2(nn.Module):
    """Cross network and deep network over one embedding, parallel or stacked."""

    def __init__(self, schema: FeatureSchema, config: DCNv2Config) -> None:
        super().__init__()
        self.schema, self.config = schema, config
        if not config.hidden or config.cross_layers < 1:
            raise SettingError(
                f"hidden {config.hidden}, cross_layers {config.cross_layers}: expected one or more of each"
            )
        self.embedding = FeatureEmbedding(schema, config.embedding_width, std=config.embedding_std)
        self.user_width = self.embedding.num_user_slots * config.embedding_width
        self.item_width = self.embedding.num_item_slots * config.embedding_width
        width = self.user_width + self.item_width
        self.cross = CrossNetwork(self.user_width, self.item_width, config.cross_layers, rank=config.rank)
        first, *others = config.hidden
        self.deep = Tower(first, others, dropout=config.dropout)
        self.deep_in: nn.Module
        if config.structure == "parallel":
            self.deep_in = SplitLinear(self.user_width, self.item_width, first)
            joined_width = width + self.deep.out_width
        else:
            self.deep_in = linear(width, first)
            joined_width = self.deep.out_width
        self.dropout = nn.Dropout(config.dropout)
        self.mix = Tower(joined_width, config.mix, dropout=config.dropout)
        self.head = linear(self.mix.out_width, len(schema.tasks))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Inputs by signature name -> logits [N, T]."""
        row_N = features[ROW]
        user_RSE, item_NSE = self.embedding(features)
        user_RD, item_ND = flat(user_RSE), flat(item_NSE)
        x0_ND = flat(join_sides(user_RSE, item_NSE, row_N))

        crossed_ND = self.cross(user_RD, item_ND, x0_ND, row_N)  # section 3.2
        if self.config.structure == "parallel":  # section 3.4, figure 1b
            deep_N = self._deep(self.deep_in(user_RD, item_ND, row_N))
            joined_N = torch.cat([crossed_ND, deep_N], dim=1)
        else:  # figure 1a
            joined_N = self._deep(self.deep_in(crossed_ND))
        logits: Tensor = self.head(self.mix(joined_N))
        return logits

    def output_biases(self) -> list[Tensor]:
        """Return the constants of the logits, T numbers in all."""
        return [self.head.bias]

    def _deep(self, first_N: Tensor) -> Tensor:
        deep_N: Tensor = self.deep(self.dropout(torch.relu(first_N)))  # section 3.3
        return deep_N
