"""MLCC and MC-MLCC (arXiv 2602.12041): a sample's crosses are made by weights that the sample itself decides.

Written in a serving form that is exact algebra: linear maps of all slots are split into the user's and the
item's side, and the user's is computed once per user row. `mlcc_equations.py` is the plain twin.

Legend: R user rows, N candidates, S slots, C channels, E width of a channel, X = C E, H heads, d_l widths
of the dynamic layers (d_0 = E), G = H sum_l d_{l-1} d_l, K kept crosses a slot, O local width (E2), T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import ROW
from rankd_training.errors import SettingError
from rankd_training.layers.embedding import FeatureEmbedding
from rankd_training.layers.gating import SlotGate
from rankd_training.layers.heads import TaskTowers, Tower, linear
from rankd_training.layers.split import SplitLinear, flat, join_sides
from rankd_training.models.mlcc_folded import FoldedLayer

__all__ = ["MLCC", "Crossing", "MLCCConfig", "MLCCLayer"]

_ACTIVATIONS = {"none": nn.Identity, "relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


@dataclass(frozen=True, slots=True)
class MLCCConfig:
    """Defaults are the published configuration for Criteo and Avazu.

    Attributes:
        embedding_width: E, numbers a slot and channel.
        channels: C; 1 is MLCC, more is MC-MLCC. A slot's embedding has C E numbers.
        heads: H, independent dynamic networks a channel.
        dynamic_widths: d_1 to d_L.
        keep: which crosses go on besides the last: 0 is the embedding itself, l is dynamic layer l.
        cross_activation: after every dynamic layer but the last; published runs have none.
        local_width: E2, numbers a slot after the local compressor.
        layers: how often slots are crossed; the published model has one. Before the last, the local
            compressor keeps a slot's C E numbers, so that the next layer can cross them again. Ours.
        residual: a layer before the last adds the slots it read to those it makes. Ours.
        hidden: widths of the final network.
        task_hidden: widths of a network of each task's own over the final one; the published model has none,
            and its tasks share all but their last weights. Ours.
        dropout: share of units dropped in the final network.
        embedding_std: initial standard deviation of embeddings. The published initialisation is None
            (Xavier-uniform per table): tiny for a table of a million rows, large for a vocabulary of three.
            A fixed value keeps the quadratic and cubic crosses of small tables small. Ours.
    """

    embedding_width: int = 16
    channels: int = 1
    heads: int = 4
    dynamic_widths: tuple[int, ...] = (4, 1)
    keep: tuple[int, ...] = (0, 1)
    cross_activation: Literal["none", "relu", "tanh", "sigmoid"] = "none"
    local_width: int = 8
    layers: int = 1
    residual: bool = True
    hidden: tuple[int, ...] = (256, 128, 64, 32)
    task_hidden: tuple[int, ...] = ()
    dropout: float = 0.2
    embedding_std: float | None = 0.01


class MLCC(nn.Module):
    """Layers that cross the slots, one as published, then a tower over what the last one makes of them."""

    def __init__(self, schema: FeatureSchema, config: MLCCConfig) -> None:
        super().__init__()
        _check(config)
        self.schema, self.config = schema, config
        width = config.embedding_width * config.channels
        self.embedding = FeatureEmbedding(schema, width, std=config.embedding_std)
        self.num_user, num_item = self.embedding.num_user_slots, self.embedding.num_item_slots
        widths = [width] * (config.layers - 1)
        self.inner = nn.ModuleList(MLCCLayer(self.num_user, num_item, config, out) for out in widths)
        self.last = MLCCLayer(self.num_user, num_item, config, config.local_width)
        self.flat_width = (self.num_user + num_item) * config.local_width
        self.tower = Tower(self.flat_width, config.hidden, dropout=config.dropout)
        tasks, width = len(schema.tasks), self.tower.out_width
        self.head = (
            TaskTowers(tasks, width, config.task_hidden, dropout=config.dropout)
            if config.task_hidden
            else linear(width, tasks)
        )

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Inputs by signature name -> logits [N, T]."""
        row_N = features[ROW]
        user_RSX, item_NSX = self.embedding(features)
        for layer in self.inner:
            made_NSX = layer(user_RSX, item_NSX, row_N)
            if self.config.residual:
                made_NSX = made_NSX + join_sides(user_RSX, item_NSX, row_N)
            # From here on a user's slots know the candidate: every candidate has a user row of its own.
            user_RSX, item_NSX = made_NSX[:, : self.num_user], made_NSX[:, self.num_user :]
            row_N = torch.arange(made_NSX.shape[0], device=row_N.device)
        local_NSO = self.last(user_RSX, item_NSX, row_N)
        top_NH = self.tower(local_NSO.reshape(-1, self.flat_width))
        towers = isinstance(self.head, TaskTowers)
        logits: Tensor = self.head([top_NH] * len(self.schema.tasks) if towers else top_NH)
        return logits

    def output_biases(self) -> list[Tensor]:
        """Return the constants of the logits, T numbers in all."""
        return [self.head.bias] if isinstance(self.head, nn.Linear) else self.head.output_biases()

    def folded(self) -> MLCC:
        """Every layer in the order in which a runtime has least to copy."""
        served = deepcopy(self).eval()
        inner = [layer for layer in served.inner if isinstance(layer, MLCCLayer)]
        served.inner = nn.ModuleList(map(FoldedLayer, inner))
        served.last = FoldedLayer(served.last)  # type: ignore[assignment]  # the same function
        return served


class MLCCLayer(nn.Module):
    """Global compressor and layered crossing per channel; then one local compressor and gate."""

    def __init__(self, num_user_slots: int, num_item_slots: int, config: MLCCConfig, out_width: int) -> None:
        super().__init__()
        self.width = config.embedding_width
        channels = [Crossing(num_user_slots, num_item_slots, config) for _ in range(config.channels)]
        self.channels = nn.ModuleList(channels)
        self.num_user, self.out_width = num_user_slots, out_width
        crossed_width = sum(channel.out_width for channel in channels)
        raw_width = config.channels * config.embedding_width if 0 in config.keep else 0
        self.local = _LocalCompressor(num_user_slots, num_item_slots, crossed_width, raw_width, out_width)
        self.gate = SlotGate(num_user_slots + num_item_slots)

    def forward(self, user_RSX: Tensor, item_NSX: Tensor, row_N: Tensor) -> Tensor:
        """-> O [N, S, out width]."""
        crossed = []
        for c, channel in enumerate(self.channels):
            mine = slice(c * self.width, (c + 1) * self.width)  # X_c: columns cE to (c+1)E of every slot
            crossed.append(channel(user_RSX[:, :, mine], item_NSX[:, :, mine], row_N))
        crossed_NSK = crossed[0] if len(crossed) == 1 else torch.cat(crossed, dim=2)  # concat_c U_c
        gated: Tensor = self.gate(self.local(crossed_NSK, user_RSX, item_NSX, row_N))  # LC, SE
        return gated


class Crossing(nn.Module):
    """One channel: the global compressor (GC) makes weights with which H networks cross every slot (PLC)."""

    def __init__(self, num_user_slots: int, num_item_slots: int, config: MLCCConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.widths = (config.embedding_width, *config.dynamic_widths)
        self.num_slots = num_user_slots + num_item_slots
        self.user_width = num_user_slots * config.embedding_width
        self.item_width = num_item_slots * config.embedding_width
        last = len(config.dynamic_widths)
        self.kept = [layer for layer in range(1, last + 1) if layer == last or layer in config.keep]
        self.out_width = self.heads * sum(self.widths[layer] for layer in self.kept)
        self.sizes = [self.heads * a * b for a, b in pairwise(self.widths)]
        self.compress = SplitLinear(self.user_width, self.item_width, sum(self.sizes), bias=False)  # W1_c
        nn.init.xavier_normal_(self.compress.weight_IO)
        self.activation = _ACTIVATIONS[config.cross_activation]()

    def forward(self, user_RSE: Tensor, item_NSE: Tensor, row_N: Tensor) -> Tensor:
        """-> U_c [N, S, K], its columns by layer, then head, then unit."""
        crosses = self.crosses(user_RSE, item_NSE, row_N)
        kept = [crosses[layer - 1] for layer in self.kept]
        return kept[0] if len(kept) == 1 else torch.cat(kept, dim=2)

    def crosses(self, user_RSE: Tensor, item_NSE: Tensor, row_N: Tensor) -> list[Tensor]:
        """Z_1 to Z_L, each [N, S, H d_l]."""
        x_NSE = join_sides(user_RSE, item_NSE, row_N)
        return self.crossed(x_NSE, self.weights(user_RSE, item_NSE, row_N))

    def weights(self, user_RSE: Tensor, item_NSE: Tensor, row_N: Tensor) -> list[Tensor]:
        """A_{c,l}, each [N, H d_{l-1} d_l]: the first as (E, H, d_1), the others as (H, d_{l-1}, d_l)."""
        global_NG = self.compress(flat(user_RSE), flat(item_NSE), row_N)
        return list(torch.split(global_NG, self.sizes, dim=1))

    def crossed(self, x_NSE: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
        """Z_1 to as many as there are weights, each [N, S, H d_l]."""
        heads, slots = self.heads, self.num_slots
        # So ordered, all heads of the first layer are one batched product, with no transpose.
        z_NSH = torch.matmul(x_NSE, weights[0].reshape(-1, self.widths[0], heads * self.widths[1]))
        crosses = [self._activated(z_NSH, 1)]
        for layer in range(2, len(weights) + 1):
            before, after = self.widths[layer - 1], self.widths[layer]
            z_NSHD = crosses[-1].reshape(-1, slots, heads, before)
            if after == 1:  # a product with one column is a multiplication and a sum
                z_NSH = (z_NSHD * weights[layer - 1].reshape(-1, 1, heads, before)).sum(3)
            else:
                weight_NHDD = weights[layer - 1].reshape(-1, heads, before, after)
                z_NHSD = torch.matmul(z_NSHD.transpose(1, 2), weight_NHDD)
                z_NSH = z_NHSD.transpose(1, 2).reshape(-1, slots, heads * after)
            crosses.append(self._activated(z_NSH, layer))
        return crosses

    def _activated(self, z_NSH: Tensor, layer: int) -> Tensor:
        """phi_l, which the last layer does not have."""
        if layer == len(self.widths) - 1:
            return z_NSH
        activated: Tensor = self.activation(z_NSH)
        return activated


class _LocalCompressor(nn.Module):
    """LC: R_s = [crosses of slot s, embedding of slot s] W2_s, a private matrix a slot, no bias."""

    def __init__(
        self, num_user_slots: int, num_item_slots: int, crossed_width: int, raw_width: int, out_width: int
    ) -> None:
        super().__init__()
        self.num_user_slots, self.crossed_width, self.raw_width = num_user_slots, crossed_width, raw_width
        num_slots = num_user_slots + num_item_slots
        self.weight_SKO = nn.Parameter(torch.empty(num_slots, crossed_width + raw_width, out_width))
        nn.init.xavier_normal_(self.weight_SKO)

    def forward(self, crossed_NSK: Tensor, user_RSX: Tensor, item_NSX: Tensor, row_N: Tensor) -> Tensor:
        """-> [N, S, O]."""
        local_SNO = _per_slot(crossed_NSK, self.weight_SKO[:, : self.crossed_width])
        if self.raw_width:
            raw_SXO = self.weight_SKO[:, self.crossed_width :]
            raw_SNO = _per_slot(item_NSX, raw_SXO[self.num_user_slots :])
            if self.num_user_slots:
                user_SRO = _per_slot(user_RSX, raw_SXO[: self.num_user_slots])
                raw_SNO = torch.cat([user_SRO.index_select(1, row_N), raw_SNO], dim=0)
            local_SNO = local_SNO + raw_SNO
        return local_SNO.transpose(0, 1)


def _per_slot(x_NSK: Tensor, weight_SKO: Tensor) -> Tensor:
    """Each slot times its own matrix -> [S, N, O]."""
    return torch.matmul(x_NSK.transpose(0, 1), weight_SKO)


def _check(config: MLCCConfig) -> None:
    for name in ("channels", "heads", "layers"):
        if getattr(config, name) < 1:
            raise SettingError(f"{name}: expected at least 1, got {getattr(config, name)}")
    if not config.dynamic_widths or min(config.dynamic_widths) < 1:
        raise SettingError(f"dynamic_widths {config.dynamic_widths}: expected one or more, each at least 1")
    last = len(config.dynamic_widths)
    if not set(config.keep) <= set(range(last + 1)):
        raise SettingError(
            f"keep {config.keep}: expected 0 (the embedding) to {last} (the last dynamic layer)"
        )
    if config.cross_activation not in _ACTIVATIONS:
        raise SettingError(
            f"cross_activation {config.cross_activation!r}: expected one of {', '.join(_ACTIVATIONS)}"
        )
