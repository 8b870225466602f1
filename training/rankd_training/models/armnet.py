"""ARM-Net and ARM-Net+ (Cai et al., 2021, arXiv 2107.01830): crosses whose fields each candidate chooses.

Exact but for its sides: attention scores of the user's slots are computed once per user row, and so is the
user's part of ARM-Net+'s first deep layer. `armnet_equations.py` is the plain twin, `armnet_reading.py` reads
a model: which fields count, and which crosses one score was made of.

Legend: R user rows, N candidates, S slots, E width of a slot, X = E or 2 E, O exponential neurons, T tasks.
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
from rankd_training.layers.exponential import ExponentialNeurons
from rankd_training.layers.heads import linear
from rankd_training.layers.normalised import BatchNorm, NormalisedHead
from rankd_training.layers.split import SplitLinear, flat, join_sides
from rankd_training.models.armnet_folded import FoldedARMNet

__all__ = ["ARMNet", "ARMNetConfig"]


@dataclass(frozen=True, slots=True)
class ARMNetConfig:
    """The paper searches heads, neurons and alpha per data set; these are its one-head form, fast to serve.

    Published for Frappe: heads 8, neurons 32, alpha 2; ARM-Net+ heads 4, neurons 4, alpha 1.5,
    deep_hidden (300, 300). A list field is one field, the mean of its values, and a plain number has a bias
    vector besides its own: the paper has no lists, and no bias. Ours.

    Attributes:
        embedding_width: E, numbers a slot. Published tables have 10 throughout.
        heads: K, projections to keys; with 1 all neurons share one, which is the one-head variant.
        neurons: o, exponential neurons a head.
        key_width: d_k, width of keys and queries; None is the embedding's, as published.
        alpha: of entmax; 1, 1.5 and 2 are fast, any other above 1 is bisected and several times as dear.
        hidden: widths of the network over the crosses, at least one.
        deep_hidden: widths of ARM-Net+'s second network, over plain embeddings of its own; none is ARM-Net.
        dropout: share of units dropped in both networks. Published runs have none.
        embedding_std: initial standard deviation of embeddings; None, as published, is Xavier-uniform
            (a table a field here, one for all fields there).
        fans: how Xavier counts the inputs of keys, queries and values: `matrix` one head at a time, as the
            published one-head code; `stack` over all heads together, as the multi-head code, which starts
            the weights of crosses far smaller.
        value_range: bounds of plain numbers; None leaves them. Published is (0.001, 1), for numbers scaled to
            that range, which a schema need not do. Ours.
        max_exponent: bound of a neuron's exponent, either way, in training and serving alike. Ours.
    """

    embedding_width: int = 10
    heads: int = 1
    neurons: int = 64
    key_width: int | None = None
    alpha: float = 1.5
    hidden: tuple[int, ...] = (300, 300)
    deep_hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    embedding_std: float | None = None
    fans: Literal["matrix", "stack"] = "matrix"
    value_range: tuple[float, ...] | None = None
    max_exponent: float = 15.0


class ARMNet(nn.Module):
    """Exponential neurons, normalised, under a network; ARM-Net+ adds a deep network's logits to its own."""

    def __init__(self, schema: FeatureSchema, config: ARMNetConfig) -> None:
        super().__init__()
        _check(config)
        self.schema, self.config = schema, config
        # ARM-Net+ has two tables; side by side in one, they cost one gather.
        tables = 2 if config.deep_hidden else 1
        self.embedding = FeatureEmbedding(schema, config.embedding_width * tables, std=config.embedding_std)
        num_user, num_item = self.embedding.num_user_slots, self.embedding.num_item_slots
        num_tasks = len(schema.tasks)
        self.neurons = ExponentialNeurons(
            num_user + num_item,
            config.embedding_width,
            heads=config.heads,
            neurons=config.neurons,
            key_width=config.key_width or config.embedding_width,
            alpha=config.alpha,
            max_exponent=config.max_exponent,
            fans=config.fans,
        )
        self.norm = BatchNorm(self.neurons.num_neurons)
        self.flat_width = self.neurons.num_neurons * config.embedding_width
        self.first = linear(self.flat_width, config.hidden[0])
        self.head = NormalisedHead(config.hidden, num_tasks, dropout=config.dropout)
        self.deep = _Deep(num_user, num_item, num_tasks, config) if config.deep_hidden else None

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Inputs by signature name -> logits [N, T]."""
        logits, _ = self.explained(features)
        return logits

    def output_biases(self) -> list[Tensor]:
        """Return the constants of the logits, T numbers in all."""
        return [self.head.out.bias if self.deep is None else self.deep.bias_T]

    def explained(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Inputs by signature name -> logits [N, T] and w [N, S, O], what each neuron takes of each slot."""
        row_N = features[ROW]
        user_RSX, item_NSX = self.embedding(self.bounded(features))
        width = self.config.embedding_width
        user_RSE, item_NSE = user_RSX[:, :, :width], item_NSX[:, :, :width]  # e_j
        weight_NSO = self.neurons.weights(user_RSE, item_NSE, row_N)  # w
        cross_NOE = self.neurons(join_sides(user_RSE, item_NSE, row_N), weight_NSO)  # y
        normal_N = self.norm(cross_NOE).reshape(-1, self.flat_width)
        logits: Tensor = self.head(self.first(normal_N))
        if self.deep is not None:  # ARM-Net+
            logits = self.deep(logits, user_RSX[:, :, width:], item_NSX[:, :, width:], row_N)
        return logits, weight_NSO

    def field_weights(self, features: Mapping[str, Tensor]) -> Tensor:
        """How much each neuron takes of each slot for each candidate -> w [N, S, O]."""
        width = self.config.embedding_width
        user_RSX, item_NSX = self.embedding(self.bounded(features))
        return self.neurons.weights(user_RSX[:, :, :width], item_NSX[:, :, :width], features[ROW])

    def folded(self) -> FoldedARMNet:
        """Scores slot by slot, weights multiplied out."""
        return FoldedARMNet(self)

    def bounded(self, features: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Plain numbers within `value_range`."""
        if self.config.value_range is None:
            return features
        low, high = self.config.value_range
        return {
            name: tensor.clamp(low, high) if tensor.is_floating_point() else tensor
            for name, tensor in features.items()
        }


class _Deep(nn.Module):
    """ARM-Net+'s other half: a network over all slots, and the Linear(2 -> 1) a task that weighs both."""

    def __init__(self, num_user: int, num_item: int, num_tasks: int, config: ARMNetConfig) -> None:
        super().__init__()
        width = config.embedding_width
        self.first = SplitLinear(num_user * width, num_item * width, config.deep_hidden[0])
        self.head = NormalisedHead(config.deep_hidden, num_tasks, dropout=config.dropout)
        self.share_2T = nn.Parameter(torch.full((2, num_tasks), 0.5))
        self.bias_T = nn.Parameter(torch.zeros(num_tasks))

    def forward(self, arm_NT: Tensor, user_RSE: Tensor, item_NSE: Tensor, row_N: Tensor) -> Tensor:
        """ARM-Net's logits and the deep network's slots -> logits [N, T]."""
        deep_NT: Tensor = self.head(self.first(flat(user_RSE), flat(item_NSE), row_N))
        return arm_NT * self.share_2T[0] + deep_NT * self.share_2T[1] + self.bias_T


def _check(config: ARMNetConfig) -> None:
    if config.heads < 1 or config.neurons < 1 or not config.hidden:
        raise SettingError(
            f"heads {config.heads}, neurons {config.neurons}, hidden {config.hidden}: "
            "expected one or more of each"
        )
    if config.key_width is not None and config.key_width < 1:
        raise SettingError(
            f"key_width {config.key_width}: expected 1 or more, or nothing for the embedding's"
        )
    if not config.alpha >= 1:
        raise SettingError(f"alpha {config.alpha}: expected 1 (softmax) or more, such as 1.5 or 2")
    if config.fans not in {"matrix", "stack"}:
        raise SettingError(f"fans {config.fans!r}: expected one of matrix, stack")
    if not config.max_exponent > 0:
        raise SettingError(f"max_exponent {config.max_exponent}: expected a number above 0")
    bounds = config.value_range
    if bounds is not None and (len(bounds) != 2 or not bounds[0] < bounds[1]):  # noqa: PLR2004  # low, high
        raise SettingError(f"value_range {bounds}: expected two numbers, the lower first, or nothing")
