"""DLRM (Naumov et al., 2019, arXiv 1906.00091): every pair of embeddings meets in one dot product.

Plain numbers go through a network of their own (the bottom MLP) and join as one more vector. Dots among the
user's vectors, and what the top MLP's first layer makes of them, are computed once per user row; so is the
bottom MLP where all numbers are the user's.

What the paper leaves open, and what is done here: a list is the mean of its values, where the paper's code
sums; a side that has plain numbers alone keeps each as a vector of its own (the value times a vector, plus a
bias), and a schema in which no other numbers are left has no bottom MLP.

Legend: R user rows, N candidates, U vectors of the user, C vectors of a candidate, E width of a vector,
P pairs, I inputs of the top MLP, V plain numbers, T tasks; "rows" is R or N.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, combinations_with_replacement

import torch
from torch import Tensor, nn

from rankd_contract.schema import Entity, FeatureSchema
from rankd_contract.signature import ROW, input_name
from rankd_training.errors import SettingError
from rankd_training.layers.embedding import ITEM_SIDE, USER_SIDE, FeatureEmbedding
from rankd_training.layers.heads import Tower, linear
from rankd_training.layers.split import SplitLinear, flat

__all__ = ["DLRM", "DLRMConfig"]


@dataclass(frozen=True, slots=True)
class DLRMConfig:
    """Sizes follow the paper's code for Criteo, scaled to an embedding of 16.

    Attributes:
        embedding_width: E, numbers a vector; also what the bottom MLP ends in.
        bottom: hidden widths of the bottom MLP before its last layer of width E.
        top: hidden widths of the top MLP, at least one.
        self_interaction: also take each vector's dot product with itself; off in the paper's code.
        dropout: share of units dropped in the top MLP. Ours; the paper has none.
        embedding_std: initial standard deviation of embeddings, None for Xavier-uniform. Ours.
    """

    embedding_width: int = 16
    bottom: tuple[int, ...] = (256, 64)
    top: tuple[int, ...] = (256, 128)
    self_interaction: bool = False
    dropout: float = 0.0
    embedding_std: float | None = 0.01


class DLRM(nn.Module):
    """Bottom MLP, embeddings, pairwise dots, top MLP."""

    def __init__(self, schema: FeatureSchema, config: DLRMConfig) -> None:
        super().__init__()
        self.schema, self.config = schema, config
        if config.embedding_width < 1 or not config.top:
            raise SettingError(
                f"embedding_width {config.embedding_width}, top {config.top}: expected one or more of each"
            )
        width = config.embedding_width
        reduced = _without_numbers(schema)  # what is left makes vectors, the rest is the bottom MLP's
        self.embedding = FeatureEmbedding(reduced, width, std=config.embedding_std)
        user_numbers, item_numbers = (_numbers(schema, reduced, side) for side in (USER_SIDE, ITEM_SIDE))
        self.bottom = _Bottom(user_numbers, item_numbers, config) if user_numbers or item_numbers else None
        of_user = self.bottom is not None and self.bottom.of_user
        of_candidate = self.bottom is not None and not of_user
        num_user = self.embedding.num_user_slots + of_user
        num_own = self.embedding.num_item_slots + of_candidate
        self.user_dots = _Dots(num_user, itself=config.self_interaction)
        self.own_dots = _Dots(num_own, itself=config.self_interaction)
        self.cross_width = num_user * num_own
        self.user_width = self.user_dots.count + width * of_user
        own_width = self.cross_width + self.own_dots.count + width * of_candidate
        if not own_width:
            raise SettingError(f"schema '{schema.name}' has one field; DLRM needs two to make a pair")
        self.first = SplitLinear(self.user_width, own_width, config.top[0])
        self.dropout = nn.Dropout(config.dropout)
        self.top = Tower(config.top[0], config.top[1:], dropout=config.dropout)
        self.head = linear(self.top.out_width, len(schema.tasks))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Inputs by signature name -> logits [N, T]."""
        row_N = features[ROW]
        user_RUE, own_NCE = self.embedding(features)
        user_parts: list[Tensor] = []  # what the top MLP reads
        own_parts: list[Tensor] = []
        if self.bottom is not None:
            bottom_E = self.bottom(features)
            if self.bottom.of_user:
                user_RUE = torch.cat([user_RUE, bottom_E.unsqueeze(1)], dim=1)
                user_parts.append(bottom_E)
            else:
                own_NCE = torch.cat([own_NCE, bottom_E.unsqueeze(1)], dim=1)
                own_parts.append(bottom_E)
        if self.user_dots.count:
            user_parts.append(self.user_dots(user_RUE))
        if self.cross_width:
            cross_NUC = torch.matmul(user_RUE.index_select(0, row_N), own_NCE.transpose(1, 2))
            own_parts.append(cross_NUC.reshape(-1, self.cross_width))
        if self.own_dots.count:
            own_parts.append(self.own_dots(own_NCE))
        user_RI = _joined(user_parts) if user_parts else flat(user_RUE[:, :0])
        first_N = self.first(user_RI, _joined(own_parts), row_N)
        logits: Tensor = self.head(self.top(self.dropout(torch.relu(first_N))))
        return logits

    def output_biases(self) -> list[Tensor]:
        """Return the constants of the logits, T numbers in all."""
        return [self.head.bias]


class _Bottom(nn.Module):
    """The MLP over plain numbers, ReLU after its last layer too; on user rows where it can be."""

    def __init__(self, user: Mapping[str, int], item: Mapping[str, int], config: DLRMConfig) -> None:
        super().__init__()
        self.user, self.item = list(user), list(item)  # names of inputs
        self.of_user = not item
        first, *others = (*config.bottom, config.embedding_width)
        user_width, item_width = sum(user.values()), sum(item.values())
        self.first: nn.Module = (
            SplitLinear(user_width, item_width, first)
            if user and item
            else linear(user_width + item_width, first)
        )
        self.rest = Tower(first, others, dropout=0.0)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """-> [R, E] where all numbers are the user's, else [N, E]."""
        sides = [_joined([features[name] for name in side]) for side in (self.user, self.item) if side]
        first = self.first(*sides, features[ROW]) if len(sides) > 1 else self.first(*sides)
        vector: Tensor = self.rest(torch.relu(first))
        return vector


class _Dots(nn.Module):
    """Dot products of all pairs among n vectors, each pair once."""

    pair_P: Tensor

    def __init__(self, num_vectors: int, *, itself: bool) -> None:
        super().__init__()
        pairs = (combinations_with_replacement if itself else combinations)(range(num_vectors), 2)
        places = [i * num_vectors + j for i, j in pairs]
        self.count, self.num_places = len(places), num_vectors * num_vectors
        self.register_buffer("pair_P", torch.tensor(places, dtype=torch.int64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, n, E] -> [rows, P]."""
        product = torch.matmul(x, x.transpose(1, 2)).reshape(-1, self.num_places)
        return product.index_select(1, self.pair_P)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)


def _without_numbers(schema: FeatureSchema) -> FeatureSchema:
    """The schema without the plain numbers of each side that has other fields too."""
    keeps = {
        entity: not any(schema.layout(of).num_ids for of in side)
        for side in (USER_SIDE, ITEM_SIDE)
        for entity in side
    }
    views = (
        replace(view, fields=tuple(f for f in view.fields if f.num_ids or keeps[view.entity]))
        for view in schema.views
    )
    return replace(schema, views=tuple(views))


def _numbers(schema: FeatureSchema, reduced: FeatureSchema, side: Sequence[Entity]) -> dict[str, int]:
    """Inputs of the plain numbers that `reduced` leaves out, and how many each has."""
    return {
        input_name(entity, "values"): schema.layout(entity).num_values
        for entity in side
        if schema.layout(entity).num_values > reduced.layout(entity).num_values
    }
