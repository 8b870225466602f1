"""ARM-Net in its serving form: exact algebra, in the order in which a runtime has long runs of numbers.

- Keys and queries of all heads are one matrix.
- The attention runs slot by slot, [S, N, O]: what a Newton step subtracts is the same for a whole slot.
- Crosses come as [N, E, O], whose matrix product is the faster one; the next layer's weights follow it.
- BatchNorm's scale and shift are in the next layer; its mean is still subtracted, since the crosses lie close
  to 1 and the digits that tell them apart would be lost in a sum.

Legend as in `armnet.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rankd_contract.signature import ROW
from rankd_training.layers.entmax import entmax_over_slots
from rankd_training.layers.split import join_sides

if TYPE_CHECKING:
    from rankd_training.models.armnet import ARMNet

__all__ = ["FoldedARMNet"]


class FoldedARMNet(nn.Module):
    """Computes what an `ARMNet` does in evaluation mode."""

    score_EO: Tensor
    value_SO: Tensor
    mean_F: Tensor
    first_FH: Tensor
    first_H: Tensor

    @torch.no_grad()
    def __init__(self, model: ARMNet) -> None:
        super().__init__()
        self.model = model = deepcopy(model).eval()
        self.schema, self.config = model.schema, model.config
        neurons, norm = model.neurons, model.norm
        num_neurons, width = neurons.num_neurons, model.config.embedding_width
        self.register_buffer("score_EO", neurons.scoring())
        self.register_buffer("value_SO", neurons.value_KOS.flatten(0, 1).T.contiguous())
        dtype = model.first.weight.dtype
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale_O = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        weight_HOE = model.first.weight.double().reshape(-1, num_neurons, width)
        first_HEO = (weight_HOE * scale_O[:, None]).transpose(1, 2)
        shift_H = (weight_HOE * norm.bias.double()[:, None]).sum((1, 2))
        self.register_buffer("mean_F", norm.running_mean.repeat(width))
        self.register_buffer("first_FH", first_HEO.flatten(1).T.contiguous().to(dtype))
        self.register_buffer("first_H", (model.first.bias.double() + shift_H).to(dtype))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Inputs by signature name -> logits [N, T]."""
        logits, _ = self._scored(features)
        return logits

    def explained(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Inputs by signature name -> logits [N, T] and w [N, S, O], what each neuron takes of each slot."""
        logits, weight_SNO = self._scored(features)
        return logits, weight_SNO.transpose(0, 1)

    def _scored(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        model, row_N = self.model, features[ROW]
        user_RSX, item_NSX = model.embedding(model.bounded(features))
        width = self.config.embedding_width
        user_RSE, item_NSE = user_RSX[:, :, :width], item_NSX[:, :, :width]
        weight_SNO = self._weights(user_RSE, item_NSE, row_N)
        slot_NES = join_sides(user_RSE, item_NSE, row_N).transpose(1, 2)
        exponent_NEO = torch.matmul(slot_NES, weight_SNO.transpose(0, 1))
        cross_NF = model.neurons.powers(exponent_NEO).reshape(-1, len(self.mean_F)) - self.mean_F
        logits: Tensor = model.head(torch.matmul(cross_NF, self.first_FH) + self.first_H)
        if model.deep is not None:
            logits = model.deep(logits, user_RSX[:, :, width:], item_NSX[:, :, width:], row_N)
        return logits, weight_SNO

    def _weights(self, user_RSE: Tensor, item_NSE: Tensor, row_N: Tensor) -> Tensor:
        """-> w [S, N, O]."""
        score_SNO = torch.matmul(item_NSE.transpose(0, 1), self.score_EO)
        if user_RSE.shape[1]:
            user_SRO = torch.matmul(user_RSE.transpose(0, 1), self.score_EO)
            score_SNO = torch.cat([user_SRO.index_select(1, row_N), score_SNO])
        return entmax_over_slots(score_SNO, self.config.alpha) * self.value_SO.unsqueeze(1)
