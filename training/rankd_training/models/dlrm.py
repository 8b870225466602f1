"""DLRM (Naumov et al., 2019, arXiv 1906.00091): every pair of embeddings meets in one dot product.

Plain numbers go through a network of their own (the bottom MLP) and join as one more vector. Dots among the
user's vectors, and what the top MLP's first layer makes of them, are computed once per user row; so is the
bottom MLP where all numbers are the user's.

What the paper leaves open, and what is done here: a list is the mean of its values, where the paper's code
sums; a schema without plain numbers has no bottom MLP and no vector of it.

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
from rankd_training.layers.deep import DeepNetwork
from rankd_training.layers.embedding import ITEM_SIDE, USER_SIDE, FeatureEmbedding
from rankd_training.layers.heads import Tower, linear
from rankd_training.layers.split import SplitLinear

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
        # Numbers are no slots here, so the embedding is that of the schema without them.
        self.embedding = FeatureEmbedding(_without_numbers(schema), width, std=config.embedding_std)
        self.bottom = _Bottom(schema, config) if _value_inputs(schema, tuple(Entity)) else None
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
            raise SettingError(f"schema '{schema.name}': DLRM needs two fields, one of them the item's")
        first = config.top[0]
        self.first: nn.Module = (
            SplitLinear(self.user_width, own_width, first) if self.user_width else linear(own_width, first)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.top = Tower(first, config.top[1:], dropout=config.dropout)
        self.head = linear(self.top.out_width, len(schema.tasks))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Inputs by signature name -> logits [N, T]."""
        row_N = features[ROW]
        users: list[Tensor] = []  # vectors of the user's side, of a candidate's own,
        owns: list[Tensor] = []
        user_parts: list[Tensor] = []  # and what the top MLP reads of each
        own_parts: list[Tensor] = []
        if self.embedding.num_user_slots:
            users.append(self.embedding.user_side(features, self.embedding.table))
        if self.embedding.num_item_slots:
            owns.append(self.embedding.item_side(features, self.embedding.table))
        if self.bottom is not None:
            bottom_E = self.bottom(features)
            (users if self.bottom.of_user else owns).append(bottom_E.unsqueeze(1))
            (user_parts if self.bottom.of_user else own_parts).append(bottom_E)

        if users and owns:
            user_RUE, own_NCE = _joined(users), _joined(owns)
            cross_NUC = torch.matmul(user_RUE.index_select(0, row_N), own_NCE.transpose(1, 2))
            own_parts.append(cross_NUC.reshape(-1, self.cross_width))
        if self.user_dots.count:
            user_parts.append(self.user_dots(_joined(users)))
        if self.own_dots.count:
            own_parts.append(self.own_dots(_joined(owns)))
        own_NI = _joined(own_parts)
        first_N = self.first(_joined(user_parts), own_NI, row_N) if user_parts else self.first(own_NI)
        logits: Tensor = self.head(self.top(self.dropout(torch.relu(first_N))))
        return logits


class _Bottom(nn.Module):
    """The MLP over all plain numbers, ReLU after its last layer too; on user rows where it can be."""

    def __init__(self, schema: FeatureSchema, config: DLRMConfig) -> None:
        super().__init__()
        self.user, self.item = _value_inputs(schema, USER_SIDE), _value_inputs(schema, ITEM_SIDE)
        self.of_user = not self.item
        hidden = (*config.bottom, config.embedding_width)
        user_width, item_width = sum(self.user.values()), sum(self.item.values())
        self.network: nn.Module = (
            DeepNetwork(user_width, item_width, hidden, dropout=0.0)
            if self.user and self.item
            else Tower(user_width + item_width, hidden, dropout=0.0)
        )

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """-> [R, E] where all numbers are the user's, else [N, E]."""
        sides = [_joined([features[name] for name in side]) for side in (self.user, self.item) if side]
        both = len(sides) > 1
        vector: Tensor = self.network(*sides, features[ROW]) if both else self.network(sides[0])
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


def _value_inputs(schema: FeatureSchema, entities: Sequence[Entity]) -> dict[str, int]:
    """Inputs of plain numbers, and how many each has."""
    widths = {input_name(entity, "values"): schema.layout(entity).num_values for entity in entities}
    return {name: width for name, width in widths.items() if width}


def _without_numbers(schema: FeatureSchema) -> FeatureSchema:
    views = (replace(view, fields=tuple(f for f in view.fields if f.num_ids)) for view in schema.views)
    return replace(schema, views=tuple(views))
