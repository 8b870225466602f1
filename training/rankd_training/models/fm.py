"""Factorization machine (Rendle, 2010, "Factorization Machines"): a weight a value and some factors a value.

What the paper leaves open, and what is done here: it has one task, several get a learned weight a factor
(`weighted`); it has no lists, here a list is one x_i, the mean of its values; a plain number has, besides its
own factors times the value, factors that are always there (they start at zero).

Legend: R user rows, N candidates, S slots, T tasks, E factors, X = T + E.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import ROW
from rankd_training.layers.embedding import FeatureEmbedding
from rankd_training.layers.factors import FactorInteraction, slot_sum

__all__ = ["FMConfig", "FactorizationMachine"]


@dataclass(frozen=True, slots=True)
class FMConfig:
    """Sizes; regularisation belongs to training.

    Attributes:
        factors: E, numbers a value beside its weight.
        weighted: learn how much each factor counts for each task, from 1; False, as printed, counts each
            alike; None is False for one task and True for several. Ours.
        share: a field that `shares` another's table has the same weights and factors; False, as printed,
            gives every field its own.
        embedding_std: initial standard deviation of factors, None for Xavier-uniform. Weights start at zero.
    """

    factors: int = 10
    weighted: bool | None = None
    share: bool = False
    embedding_std: float | None = 0.01


class FactorizationMachine(nn.Module):
    """Equation 1: y = w_0 + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j, per task."""

    def __init__(self, schema: FeatureSchema, config: FMConfig) -> None:
        super().__init__()
        self.schema, self.config, self.num_tasks = schema, config, len(schema.tasks)
        self.embedding = FeatureEmbedding(
            schema, self.num_tasks + config.factors, std=config.embedding_std, share=config.share
        )
        self.embedding.zero_columns(slice(0, self.num_tasks))
        self.interaction = FactorInteraction(config.factors, self.num_tasks, weighted=config.weighted)
        self.bias_T = nn.Parameter(torch.zeros(self.num_tasks))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Inputs by signature name -> logits [N, T]."""
        row_N = features[ROW]
        user_RSX, item_NSX = self.embedding(features)
        first, factors = slice(0, self.num_tasks), slice(self.num_tasks, None)
        linear_NT = self.bias_T + slot_sum(user_RSX[:, :, first], item_NSX[:, :, first], row_N)
        logits: Tensor = linear_NT + self.interaction(user_RSX[:, :, factors], item_NSX[:, :, factors], row_N)
        return logits

    def output_biases(self) -> list[Tensor]:
        """Return the constants of the logits, T numbers in all."""
        return [self.bias_T]
