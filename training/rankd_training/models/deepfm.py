"""DeepFM (Guo et al., 2017, arXiv 1703.04247): a factorization machine and a network over the same factors.

What the paper leaves open, and what is done here: it has one task; with several, each has weights, a logit of
the network and a weight a factor of its own (`weighted`). Lists and plain numbers are as in `fm.py`.

Legend: R user rows, N candidates, S slots, T tasks, E factors, X = T + E.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import ROW
from rankd_training.layers.deep import DeepNetwork, side_widths
from rankd_training.layers.embedding import FeatureEmbedding
from rankd_training.layers.factors import FactorInteraction, slot_sum
from rankd_training.layers.heads import linear

__all__ = ["DeepFM", "DeepFMConfig"]


@dataclass(frozen=True, slots=True)
class DeepFMConfig:
    """The paper's choice for Criteo, but for dropout (0.5 there) and the start of the factors.

    Attributes:
        factors: E, the embedding that both halves read.
        hidden: widths of the network, at least one.
        dropout: share of units dropped after each layer.
        weighted: as in `FMConfig`.
        share: a field that `shares` another's table has the same weights and factors.
        embedding_std: initial standard deviation of factors, None for Xavier-uniform. Weights start at zero.
    """

    factors: int = 10
    hidden: tuple[int, ...] = (400, 400, 400)
    dropout: float = 0.2
    weighted: bool | None = None
    share: bool = True
    embedding_std: float | None = 0.01


class DeepFM(nn.Module):
    """Equation 1: y = sigmoid( y_FM + y_DNN )."""

    def __init__(self, schema: FeatureSchema, config: DeepFMConfig) -> None:
        super().__init__()
        self.schema, self.config, self.num_tasks = schema, config, len(schema.tasks)
        self.embedding = FeatureEmbedding(
            schema, self.num_tasks + config.factors, std=config.embedding_std, share=config.share
        )
        self.embedding.zero_columns(slice(0, self.num_tasks))
        self.interaction = FactorInteraction(config.factors, self.num_tasks, weighted=config.weighted)
        widths = side_widths(self.embedding, config.factors)
        self.deep = DeepNetwork(*widths, config.hidden, dropout=config.dropout)
        self.head = linear(self.deep.out_width, self.num_tasks)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Inputs by signature name -> logits [N, T]; the constant of y_FM is the head's bias."""
        row_N = features[ROW]
        user_RSX, item_NSX = self.embedding(features)
        first, factors = slice(0, self.num_tasks), slice(self.num_tasks, None)
        user_RSE, item_NSE = user_RSX[:, :, factors], item_NSX[:, :, factors]

        fm_NT = slot_sum(user_RSX[:, :, first], item_NSX[:, :, first], row_N)  # equation 2: <w, x> ...
        fm_NT = fm_NT + self.interaction(user_RSE, item_NSE, row_N)  # ... + sum_{i<j} <V_i, V_j> x_i x_j
        logits: Tensor = fm_NT + self.head(self.deep(user_RSE, item_NSE, row_N))  # equations 3 and 4
        return logits

    def output_biases(self) -> list[Tensor]:
        """Return the constants of the logits, T numbers in all."""
        return [self.head.bias]
