"""Wukong (Zhang et al., 2024, arXiv 2403.02545): stacked factorization machines; a layer doubles the degree.

What the paper leaves open, and what is done here: the MLP of a factorization block has ReLU between its
layers and none at its end; the residual is projected across slots where their number changes, without bias;
no layer projects the slots of the embedding to another width.

Legend: R user rows, N candidates, n slots of a layer, E width of a slot, K rank, F slots from the
factorization block, L slots from the compression, T tasks. Two in a row: nK is n times K numbers.
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
from rankd_training.layers.embedding import FeatureEmbedding
from rankd_training.layers.heads import Tower, linear
from rankd_training.layers.slots import SlotMix
from rankd_training.layers.split import join_sides

__all__ = ["Wukong", "WukongConfig", "WukongLayer"]


@dataclass(frozen=True, slots=True)
class WukongConfig:
    """Defaults are the baseline of MLCC's published tables, but for the MLPs, which are not stated there.

    Attributes:
        embedding_width: E, numbers a slot.
        layers: l; crosses go up to degree 2^l.
        factor_slots: n_F, slots that a layer's factorization block makes.
        compressed_slots: n_L, slots that its linear compression makes.
        rank: K of the optimised machine X X^T Y (section 3.6); None is the full X X^T.
        projection: Y is `learned`, or `attentive`: made from compressed slots by an MLP (section 3.6).
        attentive_slots: slots that an attentive Y is made from. Ours.
        factor_hidden: hidden widths of the factorization block's MLP (and of an attentive Y's).
        hidden: widths of the network over the last layer.
        dropout: share of units dropped in that network. Ours; the paper does not state it.
        embedding_std: initial standard deviation of embeddings, None for Xavier-uniform. Ours, as in MLCC.
    """

    embedding_width: int = 16
    layers: int = 2
    factor_slots: int = 16
    compressed_slots: int = 16
    rank: int | None = 32
    projection: Literal["learned", "attentive"] = "learned"
    attentive_slots: int = 4
    factor_hidden: tuple[int, ...] = (128,)
    hidden: tuple[int, ...] = (256, 128, 64, 32)
    dropout: float = 0.2
    embedding_std: float | None = 0.01


class Wukong(nn.Module):
    """Embeddings, interaction layers, a network over what the last one makes."""

    def __init__(self, schema: FeatureSchema, config: WukongConfig) -> None:
        super().__init__()
        _check(config)
        self.schema, self.config = schema, config
        self.embedding = FeatureEmbedding(schema, config.embedding_width, std=config.embedding_std)
        num_user, num_item = self.embedding.num_user_slots, self.embedding.num_item_slots
        num_out = config.factor_slots + config.compressed_slots
        self.first = WukongLayer(num_user, num_item, config)
        self.rest = nn.ModuleList(WukongLayer(0, num_out, config) for _ in range(config.layers - 1))
        self.flat_width = num_out * config.embedding_width
        self.tower = Tower(self.flat_width, config.hidden, dropout=config.dropout)
        self.head = linear(self.tower.out_width, len(schema.tasks))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Inputs by signature name -> logits [N, T]."""
        row_N = features[ROW]
        x_NnE: Tensor = self.first(*self.embedding(features), row_N)
        for layer in self.rest:
            x_NnE = layer(x_NnE[:, :0], x_NnE, row_N)
        logits: Tensor = self.head(self.tower(x_NnE.reshape(-1, self.flat_width)))
        return logits

    def output_biases(self) -> list[Tensor]:
        """Return the constants of the logits, T numbers in all."""
        return [self.head.bias]


class WukongLayer(nn.Module):
    """X' = LN( concat( FMB(X), LCB(X) ) + X ), equation 1. What is linear in X is done once per user row."""

    def __init__(self, num_user: int, num_item: int, config: WukongConfig) -> None:
        super().__init__()
        self.num_slots, num_out = num_user + num_item, config.factor_slots + config.compressed_slots
        self.width, self.rank, self.num_factor = config.embedding_width, config.rank, config.factor_slots
        # Each of these is a matrix over X's slots; one above the other they cost one product.
        attentive = config.projection == "attentive"
        projected = config.attentive_slots if attentive else config.rank or 0
        residual = 0 if num_out == self.num_slots else num_out
        self.sizes = [projected, config.compressed_slots, residual]
        self.mix = SlotMix(num_user, num_item, sum(self.sizes))
        self.project = (
            _network(projected * self.width, config.factor_hidden, self.num_slots * (config.rank or 0))
            if attentive
            else None
        )
        self.factored_width = self.num_slots * (config.rank or self.num_slots)
        self.factor_norm = nn.LayerNorm(self.factored_width)
        self.factor_mlp = _network(
            self.factored_width, config.factor_hidden, config.factor_slots * self.width
        )
        self.norm = nn.LayerNorm(self.width)

    def forward(self, user_RnE: Tensor, item_NnE: Tensor, row_N: Tensor) -> Tensor:
        """-> [N, F + L, E]."""
        mixed_NOE = self.mix(user_RnE, item_NnE, row_N)
        projected_NOE, compressed_NLE, residual_NOE = torch.split(mixed_NOE, self.sizes, dim=1)
        x_NnE = join_sides(user_RnE, item_NnE, row_N)
        factored_N = self._machine(x_NnE, projected_NOE).reshape(-1, self.factored_width)
        # FMB(X) = reshape( MLP( LN( flatten( FM(X) ) ) ) ), equation 2; LCB(X) = W_L X, equation 3.
        factor_NFE = self.factor_mlp(self.factor_norm(factored_N)).reshape(-1, self.num_factor, self.width)
        made_NOE = torch.cat([factor_NFE, compressed_NLE], dim=1)
        out: Tensor = self.norm(made_NOE + (residual_NOE if self.sizes[2] else x_NnE))
        return out

    def _machine(self, x_NnE: Tensor, projected_NOE: Tensor) -> Tensor:
        """FM(X) = X X^T Y -> [N, n, K]; Y^T X comes first, which is what makes it cheap."""
        if self.rank is None:
            return torch.matmul(x_NnE, x_NnE.transpose(1, 2))
        if self.project is None:
            return torch.matmul(x_NnE, projected_NOE.transpose(1, 2))
        y_NnK = self.project(projected_NOE.flatten(1)).reshape(-1, self.num_slots, self.rank)
        return torch.matmul(x_NnE, torch.matmul(x_NnE.transpose(1, 2), y_NnK))


def _network(in_width: int, hidden: tuple[int, ...], out_width: int) -> nn.Sequential:
    inner = Tower(in_width, hidden, dropout=0.0)
    return nn.Sequential(inner, linear(inner.out_width, out_width))


def _check(config: WukongConfig) -> None:
    for name in ("embedding_width", "layers", "factor_slots", "compressed_slots", "attentive_slots"):
        if getattr(config, name) < 1:
            raise SettingError(f"{name}: expected at least 1, got {getattr(config, name)}")
    if config.rank is not None and config.rank < 1:
        raise SettingError(f"rank {config.rank}: expected 1 or more, or nothing for X X^T in full")
    if config.projection not in {"learned", "attentive"}:
        raise SettingError(f"projection {config.projection!r}: expected one of learned, attentive")
    if config.projection == "attentive" and config.rank is None:
        raise SettingError("projection 'attentive': there is nothing to project without a rank")
