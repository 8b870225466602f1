"""ARM-Net as it is printed: no side split off, no weights folded, entmax bisected. The twin of `armnet.py`.

Reads the weights of an `ARMNet`; for its tests, in evaluation mode.

Legend as in `armnet.py`; all S slots belong to each of the N candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from rankd_contract.signature import ROW
from rankd_training.layers.entmax import entmax_by_bisection
from rankd_training.models.armnet import ARMNet

__all__ = ["equations", "over_slots"]

# Scores and alpha -> weights along the last axis.
Entmax = Callable[[Tensor, float], Tensor]


def equations(model: ARMNet, features: Mapping[str, Tensor]) -> Tensor:
    """Inputs by signature name -> logits [N, T], with dropout off and running statistics."""
    user_RSX, item_NSX = model.embedding(features)
    return over_slots(model, torch.cat([user_RSX[features[ROW]], item_NSX], dim=1), _entmax)


def over_slots(model: ARMNet, x_NSX: Tensor, entmax: Entmax) -> Tensor:
    """Embedded slots of every candidate -> logits [N, T]."""
    config, neurons = model.config, model.neurons
    e_NSE, plain_NSE = x_NSX[:, :, : config.embedding_width], x_NSX[:, :, config.embedding_width :]

    crosses = []
    for w_ED, q_OD, v_OS in zip(neurons.key_KED, neurons.query_KOD, neurons.value_KOS, strict=True):
        s_NOS = torch.einsum("nsd,od->nos", e_NSE @ w_ED, q_OD) / math.sqrt(w_ED.shape[1])
        z_NOS = entmax(s_NOS, config.alpha)
        w_NOS = z_NOS * v_OS
        crosses.append(torch.exp(torch.einsum("nos,nse->noe", w_NOS, e_NSE)))
    y_NOE = torch.cat(crosses, dim=1)
    y_NOE = _normalised(model.norm, y_NOE.transpose(1, 2)).transpose(1, 2)
    logits: Tensor = model.head(y_NOE.flatten(1) @ model.first.weight.T + model.first.bias)
    if model.deep is None:
        return logits

    first = model.deep.first
    assert first.bias_O is not None
    deep_NT = model.deep.head(plain_NSE.flatten(1) @ first.weight_IO + first.bias_O)
    pair_N2T = torch.stack([logits, deep_NT], dim=1)
    return (pair_N2T * model.deep.share_2T).sum(1) + model.deep.bias_T


def _entmax(s: Tensor, alpha: float) -> Tensor:
    if alpha == 1:
        return s.exp() / s.exp().sum(-1, keepdim=True)
    return entmax_by_bisection(s.double(), alpha, rounds=50).to(s.dtype)


def _normalised(norm: torch.nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Channels last."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return (x - norm.running_mean) / torch.sqrt(norm.running_var + norm.eps) * norm.weight + norm.bias
