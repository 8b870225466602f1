"""ARM-Net's exponential neurons (arXiv 2107.01830): each is a product of powers of the fields it chooses.

y = exp( sum_j w_j e_j ) is, number by number, the product over fields j of exp(e_j) ^ w_j. A sparse attention
decides for every candidate which fields a neuron takes, and so the order of its cross.

Legend: R user rows, N candidates, S slots, E width of a slot, K heads, o neurons a head, O = K o, D width
of a key.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from rankd_training.layers.entmax import entmax
from rankd_training.layers.split import join_sides

__all__ = ["ExponentialNeurons"]

_GAIN = 1.414  # as published, to its three digits


class ExponentialNeurons(nn.Module):
    """K heads of o neurons over all slots. Scores of the user's slots are computed once per user row.

    Args:
        num_slots: S.
        width: E.
        heads: K.
        neurons: o.
        key_width: D.
        alpha: of entmax; 1 takes every field, more leaves fields out.
        max_exponent: bound of the exponent, either way.
        fans: how Xavier counts: `matrix` a head at a time, `stack` as torch counts a tensor of three axes.
    """

    def __init__(
        self,
        num_slots: int,
        width: int,
        *,
        heads: int,
        neurons: int,
        key_width: int,
        alpha: float,
        max_exponent: float,
        fans: Literal["matrix", "stack"],
    ) -> None:
        super().__init__()
        self.alpha, self.max_exponent = alpha, max_exponent
        self.num_neurons = heads * neurons
        self.key_KED = nn.Parameter(torch.empty(heads, width, key_width))  # W_k
        self.query_KOD = nn.Parameter(torch.empty(heads, neurons, key_width))  # q_{k,i}
        self.value_KOS = nn.Parameter(torch.empty(heads, neurons, num_slots))  # v_{k,i}
        for weight in (self.key_KED, self.query_KOD, self.value_KOS):
            for part in weight if fans == "matrix" else [weight]:
                nn.init.xavier_uniform_(part, gain=_GAIN)

    def forward(self, embedded_NSE: Tensor, weight_NSO: Tensor) -> Tensor:
        """Slots of every candidate and what `weights` makes of them -> [N, O, E]."""
        exponent_NOE = torch.matmul(weight_NSO.transpose(1, 2), embedded_NSE)  # sum_j w_{k,i,j} e_j
        return self.powers(exponent_NOE)  # y_{k,i}

    def powers(self, exponent: Tensor) -> Tensor:
        """Half precision overflows above 11; the bound keeps a field far outside its usual range finite."""
        wide = exponent.to(torch.promote_types(exponent.dtype, torch.float32))
        return torch.exp(wide.clamp(-self.max_exponent, self.max_exponent))

    def scoring(self) -> Tensor:
        """Return the matrix [E, O] from a slot to its scores: q_{k,i} (e_j W_k) = e_j (W_k q_{k,i})."""
        score_KEO = torch.matmul(self.key_KED, self.query_KOD.transpose(1, 2))
        return score_KEO.transpose(0, 1).flatten(1) / math.sqrt(self.key_KED.shape[2])

    def weights(self, user_RSE: Tensor, item_NSE: Tensor, row_N: Tensor) -> Tensor:
        """How much each neuron takes of each slot, zero for most -> w [N, S, O]."""
        score_EO = self.scoring()
        user_RSO = torch.matmul(user_RSE, score_EO)
        item_NSO = torch.matmul(item_NSE, score_EO)
        score_NSO = join_sides(user_RSO, item_NSO, row_N)  # s_{k,i,j}
        gate_NSO = entmax(score_NSO, self.alpha, dim=1)  # z = entmax(s), over the fields
        return gate_NSO * self.value_KOS.flatten(0, 1).T  # w = z v
