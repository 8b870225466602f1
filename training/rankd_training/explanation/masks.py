"""A model whose fields are scaled before anything else sees them: f(m · x), one number a field.

A plain number is scaled as it enters. An id has no size, so the vector that it becomes is scaled; that works
on every model of the registry, since all read their ids through `FeatureEmbedding`. A cross of the schema is
scaled as both of its fields are.

Legend: R user rows, N candidates, S slots, L positions of all sequences, E width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from rankd_contract.schema import Cross, Entity, FeatureSchema, Field, Kind
from rankd_training.errors import SettingError
from rankd_training.examples.inputs import field_columns
from rankd_training.layers.embedding import ITEM_SIDE, USER_SIDE, FeatureEmbedding, SideTokens

__all__ = ["Masks", "masked"]


class Masks:
    """Scales by field; those that are not named are 1."""

    def __init__(self, schema: FeatureSchema) -> None:
        self._sides = tuple(_fields(schema, side) for side in (USER_SIDE, ITEM_SIDE))
        self._crosses = tuple(
            [cross for cross in schema.crosses if schema.of_item(cross) is of_item]
            for of_item in (False, True)
        )
        self._numbers = {
            f.name: field_columns(schema)[f.name] for side in self._sides for f in side if not f.num_ids
        }
        self._known = {f.name for side in self._sides for f in side}
        self._scale: Mapping[str, float] = {}

    def set(self, scale: Mapping[str, float]) -> None:
        """Scale these fields from now on. KeyError for a field that the schema has not."""
        for name in scale:
            if name not in self._known:
                raise KeyError(name)
        self._scale = dict(scale)

    def inputs(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scale plain numbers; ids are left to their vectors."""
        scaled = dict(features)
        for field, (name, at) in self._numbers.items():
            if field in self._scale:
                if scaled[name] is features[name]:
                    scaled[name] = features[name].clone()
                scaled[name][:, at] *= self._scale[field]
        return scaled

    def slots(self, side: int, slots_RSE: Tensor) -> Tensor:
        """Scale one side's vectors, one a slot; a model may keep plain numbers out of them."""
        fields, crosses = self._sides[side], self._crosses[side]
        if slots_RSE.shape[1] != len(fields) + len(crosses):
            fields = [f for f in fields if f.num_ids]
        return slots_RSE * self._column(fields, crosses, like=slots_RSE)

    def tokens(self, side: int, tokens: SideTokens) -> SideTokens:
        """Scale one side whose sequences are left position by position."""
        fields = self._sides[side]
        slots, sequence = tokens.slots_RSE, tokens.sequence_RLE
        if slots is not None:
            plain = [f for f in fields if f.kind is not Kind.SEQUENCE]
            slots = slots * self._column(plain, self._crosses[side], like=slots)
        if sequence is not None:
            positions = [f for f in fields if f.kind is Kind.SEQUENCE for _ in range(f.max_length)]
            sequence = sequence * self._column(positions, [], like=sequence)
        return replace(tokens, slots_RSE=slots, sequence_RLE=sequence)

    def _column(self, fields: list[Field], crosses: list[Cross], *, like: Tensor) -> Tensor:
        scales = [self._scale.get(f.name, 1.0) if f.num_ids else 1.0 for f in fields]
        scales += [math.prod(self._scale.get(name, 1.0) for name in cross.of) for cross in crosses]
        return like.new_tensor(scales).unsqueeze(1)


@contextmanager
def masked(model: nn.Module, schema: FeatureSchema) -> Iterator[Masks]:
    """Put masks between a model and its embeddings; leave the model as it was.

    Raises:
        SettingError: the model reads its fields in another way.
    """
    masks = Masks(schema)
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, FeatureEmbedding)
    ]
    if not places:
        raise SettingError(f"{type(model).__name__} has no FeatureEmbedding, so its fields cannot be scaled")
    entered = model.register_forward_pre_hook(lambda _, given: (masks.inputs(given[0]), *given[1:]))
    try:
        for parent, name, child in places:
            setattr(parent, name, _Scaled(child, masks))
        yield masks
    finally:
        entered.remove()
        for parent, name, child in places:
            setattr(parent, name, child)


class _Scaled(nn.Module):
    """An embedding seen through masks; all else about it is its own."""

    def __init__(self, embedding: FeatureEmbedding, masks: Masks) -> None:
        super().__init__()
        self.embedding, self._masks = embedding, masks

    def forward(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """As `FeatureEmbedding.forward`."""
        user_RSE, item_NSE = self.embedding(features)
        return self._masks.slots(0, user_RSE), self._masks.slots(1, item_NSE)

    def tokens(self, features: Mapping[str, Tensor]) -> tuple[SideTokens, SideTokens]:
        """As `FeatureEmbedding.tokens`."""
        user, item = self.embedding.tokens(features)
        return self._masks.tokens(0, user), self._masks.tokens(1, item)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.embedding, name)


def _fields(schema: FeatureSchema, side: tuple[Entity, ...]) -> list[Field]:
    return [entry.field for entity in side for entry in schema.layout(entity).fields]
