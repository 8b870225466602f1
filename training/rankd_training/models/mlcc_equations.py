"""MLCC as its equations are printed: nothing split, reordered or fused. The twin of `mlcc.py` in its tests.

Reads the weights of an `MLCC` and undoes the order in which that module stores them.

Legend as in `mlcc.py`; all S slots belong to each of the N candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from rankd_contract.signature import ROW
from rankd_training.layers.heads import TaskTowers
from rankd_training.models.mlcc import MLCC, Crossing, MLCCConfig, MLCCLayer

__all__ = ["equations", "over_slots"]


def equations(model: MLCC, features: Mapping[str, Tensor]) -> Tensor:
    """Inputs by signature name -> logits [N, T], with dropout off."""
    user_RSX, item_NSX = model.embedding(features)
    return over_slots(model, torch.cat([user_RSX[features[ROW]], item_NSX], dim=1))


def over_slots(model: MLCC, x_NSX: Tensor) -> Tensor:
    """Embedded slots of every candidate -> logits [N, T]."""
    for layer in model.inner:
        assert isinstance(layer, MLCCLayer)
        made_NSX = _layer(layer, model.config, x_NSX)
        x_NSX = x_NSX + made_NSX if model.config.residual else made_NSX
    x = _layer(model.last, model.config, x_NSX).flatten(1)
    for module in model.tower.layers:
        x = x if isinstance(module, torch.nn.Dropout) else module(x)
    heads = model.head.towers if isinstance(model.head, TaskTowers) else [model.head]
    return torch.cat([head(x) for head in heads], dim=1)


def _layer(layer: MLCCLayer, config: MLCCConfig, x_NSX: Tensor) -> Tensor:
    """-> O [N, S, width after the local compressor]."""
    num_candidates, num_slots, _ = x_NSX.shape
    widths = (config.embedding_width, *config.dynamic_widths)
    last = len(config.dynamic_widths)
    kept = [at for at in range(1, last + 1) if at == last or at in config.keep]

    crossed = []
    for c, channel in enumerate(layer.channels):
        assert isinstance(channel, Crossing)
        x_NSE = x_NSX[:, :, c * widths[0] : (c + 1) * widths[0]]
        # GC: g_c = x_c W1_c
        g_NG = x_NSE.reshape(num_candidates, -1) @ channel.compress.weight_IO
        z_NHSD = x_NSE[:, None].expand(-1, config.heads, -1, -1)  # Z_0
        made = {}
        for at, a_NHDD in enumerate(_dynamic_weights(g_NG, config.heads, widths), start=1):
            z_NHSD = torch.einsum("nhsi,nhio->nhso", z_NHSD, a_NHDD)  # PLC: Z_l = phi_l(Z_{l-1} A_{c,l})
            if at < last:
                z_NHSD = _phi(z_NHSD, config.cross_activation)
            made[at] = z_NHSD
        u_NHSK = torch.cat([made[at] for at in kept], dim=3)
        crossed.append(u_NHSK.transpose(1, 2).reshape(num_candidates, num_slots, -1))

    # LC: R_s = V_s W2_s
    v_NSK = torch.cat([*crossed, x_NSX] if 0 in config.keep else crossed, dim=2)
    kept_widths = [widths[at] for at in kept]
    printed = _printed_rows(config.channels, config.heads, kept_widths, v_NSK.shape[2])
    r_NSO = torch.einsum("nsk,sko->nso", v_NSK, layer.local.weight_SKO[:, printed])

    # SE: z = mean over E2, a = sigmoid(LN(relu(z Wa + ba)) Wb + bb), O = a R
    gate = layer.gate
    z_NS = torch.relu(r_NSO.mean(2) @ gate.squeeze.weight.T + gate.squeeze.bias)
    z_NS = functional.layer_norm(z_NS, z_NS.shape[1:])
    a_NS = torch.sigmoid(z_NS @ gate.excite.weight.T + gate.excite.bias)
    return a_NS[:, :, None] * r_NSO


def _dynamic_weights(g_NG: Tensor, heads: int, widths: Sequence[int]) -> list[Tensor]:
    """A_{c,l}, each [N, H, d_{l-1}, d_l]; the first is stored inputs first, the others heads first."""
    sizes = [heads * a * b for a, b in pairwise(widths)]
    first, *others = torch.split(g_NG, sizes, dim=1)
    weights = [first.reshape(-1, widths[0], heads, widths[1]).transpose(1, 2)]
    for layer, stored in enumerate(others, start=2):
        weights.append(stored.reshape(-1, heads, widths[layer - 1], widths[layer]))
    return weights


def _printed_rows(channels: int, heads: int, kept_widths: Sequence[int], num_rows: int) -> Tensor:
    """Row of W2_s as stored (channel, layer, head, unit) for each as printed (channel, head, layer, unit)."""
    stored: list[Tensor] = []
    start = 0
    for _ in range(channels):
        layers = []
        for width in kept_widths:
            layers.append(torch.arange(start, start + heads * width).reshape(heads, width))
            start += heads * width
        stored.append(torch.cat(layers, dim=1).reshape(-1))
    return torch.cat([*stored, torch.arange(start, num_rows)])  # the raw embedding comes last in both


def _phi(z: Tensor, activation: str) -> Tensor:
    functions = {"none": torch.clone, "relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}
    return functions[activation](z)
