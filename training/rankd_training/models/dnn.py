"""A plain deep network over the fields' embeddings: the floor of everything deep.

No interaction is written down; whatever it learns of one, its hidden layers found by themselves.

Legend: R user rows, N candidates, S slots, E width of a slot, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import ROW
from rankd_training.layers.deep import DeepNetwork, side_widths
from rankd_training.layers.embedding import FeatureEmbedding
from rankd_training.layers.heads import linear

__all__ = ["DNN", "DNNConfig"]


@dataclass(frozen=True, slots=True)
class DNNConfig:
    """Defaults are the DNN that MLCC's published tables compare with.

    Attributes:
        embedding_width: E, numbers a slot.
        hidden: widths of the network, at least one.
        dropout: share of units dropped after each layer.
        embedding_std: initial standard deviation of embeddings, None for Xavier-uniform. Ours, as in MLCC.
    """

    embedding_width: int = 16
    hidden: tuple[int, ...] = (256, 128, 64, 32)
    dropout: float = 0.2
    embedding_std: float | None = 0.01


class DNN(nn.Module):
    """Embeddings side by side, a network, a logit a task."""

    def __init__(self, schema: FeatureSchema, config: DNNConfig) -> None:
        super().__init__()
        self.schema, self.config = schema, config
        self.embedding = FeatureEmbedding(schema, config.embedding_width, std=config.embedding_std)
        self.deep = DeepNetwork(*side_widths(self.embedding), config.hidden, dropout=config.dropout)
        self.head = linear(self.deep.out_width, len(schema.tasks))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Inputs by signature name -> logits [N, T]."""
        logits: Tensor = self.head(self.deep(*self.embedding(features), features[ROW]))
        return logits

    def output_biases(self) -> list[Tensor]:
        """Return the constants of the logits, T numbers in all."""
        return [self.head.bias]
