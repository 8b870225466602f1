"""Logistic regression over the schema's fields: the baseline that knows no interaction.

Every value of every field has one weight a task; a list field counts by the mean of its values' weights.
A field that `shares` another's table has weights of its own, since liking films like this one and being
this film are different things to a linear model.

Legend: R user rows, N candidates, S slots, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import ROW
from rankd_training.layers.embedding import FeatureEmbedding

__all__ = ["LogisticConfig", "LogisticRegression"]


@dataclass(frozen=True, slots=True)
class LogisticConfig:
    """Nothing to choose: regularisation belongs to training.

    Attributes:
        embedding_std: standard deviation of the initial weights; with 0 no value says anything at first.
    """

    embedding_std: float = 0.0


class LogisticRegression(nn.Module):
    """logits = sum of the values' weights + bias, per task."""

    def __init__(self, schema: FeatureSchema, config: LogisticConfig) -> None:
        super().__init__()
        self.schema, self.config = schema, config
        num_tasks = len(schema.tasks)
        self.embedding = FeatureEmbedding(schema, num_tasks, std=config.embedding_std, share=False)
        self.bias_T = nn.Parameter(torch.zeros(num_tasks))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Inputs by signature name -> logits [N, T]."""
        user_RST, item_NST = self.embedding(features)
        if not self.embedding.num_user_slots:  # a table without users
            item_NT: Tensor = item_NST.sum(1) + self.bias_T
            return item_NT
        user_RT = user_RST.sum(1) + self.bias_T
        logits: Tensor = user_RT.index_select(0, features[ROW]) + item_NST.sum(1)
        return logits

    def output_biases(self) -> list[Tensor]:
        """Return the constants of the logits, T numbers in all."""
        return [self.bias_T]
