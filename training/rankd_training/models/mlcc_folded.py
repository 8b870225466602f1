"""An MLCC layer in its serving form: exact algebra, and as few short copies as there can be.

- The local compressor gives [S, O, N], which a plain matrix transposition turns into rows of candidates;
  the printed order is one of blocks of O numbers, seven times slower.
- A last dynamic layer of width 1 is a product, summed over its inputs. The sum is linear, and so is what
  follows: its weights are repeated instead, and the products are not added up.
- What is the same for all numbers of a slot, and what all slots have in common, is repeated by a product with
  zeros and ones (`layers/tiling.py`).

Legend as in `mlcc.py`; D is H d_{L-1}, I the gate's inner width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rankd_training.layers.gating import SlotGate
from rankd_training.layers.split import flat, join_sides
from rankd_training.layers.tiling import each_repeated, row_repeated

if TYPE_CHECKING:
    from rankd_training.models.mlcc import Crossing, MLCCLayer

__all__ = ["FoldedLayer"]

# Up to here repeating by a product costs less than a broadcast multiplication's many short runs.
_WIDEST_TILE = 32


class FoldedLayer(nn.Module):
    """Computes what an `MLCCLayer` does."""

    raw_user_SXO: Tensor
    raw_item_SOX: Tensor

    def __init__(self, layer: MLCCLayer) -> None:
        super().__init__()
        self.width, self.out_width, self.num_user = layer.width, layer.out_width, layer.num_user
        weight_SKO = layer.local.weight_SKO.detach()
        self.channels = nn.ModuleList()
        at = 0
        for part in layer.channels:
            channel: Any = part  # a Crossing
            mine_SKO = weight_SKO[:, at : at + channel.out_width]
            self.channels.append(_FoldedChannel(channel, mine_SKO))
            at += channel.out_width
        self.raw = layer.local.raw_width > 0
        raw_SXO = weight_SKO[:, at:]
        self.register_buffer("raw_user_SXO", raw_SXO[: self.num_user].clone())
        self.register_buffer("raw_item_SOX", raw_SXO[self.num_user :].transpose(1, 2).contiguous())
        self.flat_width = len(weight_SKO) * self.out_width
        self.gate = _FoldedGate(layer.gate, len(weight_SKO), self.out_width)

    def forward(self, user_RSX: Tensor, item_NSX: Tensor, row_N: Tensor) -> Tensor:
        """-> O [N, S, O]."""
        parts = []
        for c, channel in enumerate(self.channels):
            mine = slice(c * self.width, (c + 1) * self.width)
            parts += channel(user_RSX[:, :, mine], item_NSX[:, :, mine], row_N)
        local_SON = parts[0]
        for part_SON in parts[1:]:
            local_SON = local_SON + part_SON
        local_NL = local_SON.reshape(self.flat_width, -1).T
        if self.raw:
            local_NL = local_NL + self._raw(user_RSX, item_NSX, row_N)
        gated: Tensor = self.gate(local_NL)
        return gated.reshape(-1, self.flat_width // self.out_width, self.out_width)

    def _raw(self, user_RSX: Tensor, item_NSX: Tensor, row_N: Tensor) -> Tensor:
        """What the embeddings themselves add -> [N, S O]."""
        item_SON = torch.matmul(self.raw_item_SOX, item_NSX.permute(1, 2, 0))
        item_NL = item_SON.reshape(self.flat_width - self.num_user * self.out_width, -1).T
        if not self.num_user:
            return item_NL
        user_SRO = torch.matmul(user_RSX.transpose(0, 1), self.raw_user_SXO)
        return torch.cat([flat(user_SRO.transpose(0, 1)).index_select(0, row_N), item_NL], dim=1)


class _FoldedChannel(nn.Module):
    """A channel's crosses, each already through its share of the local compressor."""

    tile_DL: Tensor | None

    def __init__(self, crossing: Crossing, weight_SKO: Tensor) -> None:
        super().__init__()
        self.crossing = crossing
        heads, widths, last = crossing.heads, crossing.widths, len(crossing.widths) - 1
        self.by_column = last > 1 and widths[last] == 1
        before = widths[last - 1]
        pieces = torch.split(weight_SKO, [heads * widths[layer] for layer in crossing.kept], dim=1)
        stored = dict(zip(crossing.kept, pieces, strict=True))
        if self.by_column:
            stored[last] = stored[last].repeat_interleave(before, dim=1)
        # One matrix a slot, its transposed, so that what comes out has candidates last.
        self.weights = nn.ParameterDict(
            {str(layer): nn.Parameter(w.transpose(1, 2).contiguous()) for layer, w in stored.items()}
        )
        width = heads * before
        tiles = self.by_column and width <= _WIDEST_TILE
        self.register_buffer(
            "tile_DL", row_repeated(width, crossing.num_slots).to(weight_SKO.dtype) if tiles else None
        )

    def forward(self, user_RSE: Tensor, item_NSE: Tensor, row_N: Tensor) -> list[Tensor]:
        """-> [S, O, N] a kept cross."""
        crossing = self.crossing
        weights = crossing.weights(user_RSE, item_NSE, row_N)
        x_NSE = join_sides(user_RSE, item_NSE, row_N)
        if not self.by_column:
            crosses = crossing.crossed(x_NSE, weights)
        else:
            *inner, column_ND = weights
            crosses = crossing.crossed(x_NSE, inner)
            crosses.append(self._times(crosses[-1], column_ND))
        # [S, O, K] times [N, S, K] with its axes turned: the runtime reads it so, without a copy.
        return [
            torch.matmul(w, crosses[int(layer) - 1].permute(1, 2, 0)) for layer, w in self.weights.items()
        ]

    def _times(self, z_NSD: Tensor, column_ND: Tensor) -> Tensor:
        if self.tile_DL is None:
            return z_NSD * column_ND.unsqueeze(1)
        _, num_slots, width = z_NSD.shape
        product_NL = z_NSD.reshape(-1, num_slots * width) * torch.matmul(column_ND, self.tile_DL)
        return product_NL.reshape(-1, num_slots, width)


class _FoldedGate(nn.Module):
    """A `SlotGate` over flat slots: the mean is in the first weights, the gates are repeated by a product."""

    squeeze_LI: Tensor
    tile_SL: Tensor

    def __init__(self, gate: SlotGate, num_slots: int, width: int) -> None:
        super().__init__()
        self.gate = gate
        weight_IL = gate.squeeze.weight.detach().repeat_interleave(width, dim=1) / width
        self.register_buffer("squeeze_LI", weight_IL.T.contiguous())
        self.register_buffer("tile_SL", each_repeated(num_slots, width).to(weight_IL.dtype))

    def forward(self, x_NL: Tensor) -> Tensor:
        """[N, S O] -> [N, S O]."""
        gate = self.gate
        inner_NI = gate.norm(torch.relu(torch.matmul(x_NL, self.squeeze_LI) + gate.squeeze.bias))
        return x_NL * torch.matmul(torch.sigmoid(gate.excite(inner_NI)), self.tile_SL)
