"""OptInter (Lyu et al., 2022, arXiv 2108.01265): for each pair of fields, memorise, factorise, or leave it.

Memorise gives a pair a hashed table of its own, factorise the product of two small factors, naive nothing.
Without `methods` the model searches: each pair is a mixture of the three whose softmax cools as training goes
on. `chosen` then says what to train again from scratch, with that as `methods`
(`rankd_training/recipes/optinter.py` does both).

Crosses are hashed in the graph from the ids it reads, so they are served with no field more in any store and
a pair may join the user with the item. Pairs of the user's own fields are made once per user row. A cross
that the schema has already is a slot as in any model, and not paired.

What the paper leaves open, and what is done here: weights and choices learn in the same step at the same
rate, where its code has 1e-4 and 1e-3; its tables drop crosses seen less than 20 times, here they are hashed;
a list or a plain number can be factorised, not memorised.

Legend: R user rows, N candidates, S slots, E width of a slot, D width of a pair, X = E + D, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import torch
from torch import Tensor, nn

from rankd_contract.pair_hash import HashedPair
from rankd_contract.schema import UNKNOWN, Entity, FeatureSchema, Field
from rankd_contract.signature import ROW, input_name
from rankd_training.errors import SettingError
from rankd_training.layers.embedding import ITEM_SIDE, USER_SIDE, FeatureEmbedding
from rankd_training.layers.heads import linear
from rankd_training.layers.pairs import METHODS, Pair, PairGroup
from rankd_training.layers.split import SplitLinear, flat

__all__ = ["OptInter", "OptInterConfig"]

_COLDEST = 0.01


@dataclass(frozen=True, slots=True)
class OptInterConfig:
    """The paper's sizes but for the network (five layers of 700 there).

    Attributes:
        methods: what each pair does, as `user_id*item_id=memorise`; a pair that is not named is naive. None
            searches.
        embedding_width: E, numbers a slot.
        pair_width: D, numbers a pair.
        cross_rows: most rows of one pair's table; a pair with fewer combinations has a row for each.
        cooling: what a training step takes off the softmax's temperature, from 1 to 0.01 at the lowest.
        hidden: widths of the network: Linear, LayerNorm, ReLU each.
        dropout: share of units dropped. Ours.
        embedding_std: initial standard deviation of embeddings, factors and crosses.
    """

    methods: tuple[str, ...] | None = None
    embedding_width: int = 20
    pair_width: int = 10
    cross_rows: int = 100_000
    cooling: float = 5e-5
    hidden: tuple[int, ...] = (256, 128)
    dropout: float = 0.0
    embedding_std: float = 0.01


class OptInter(nn.Module):
    """Embeddings and what the pairs give, under one network."""

    steps: Tensor

    def __init__(self, schema: FeatureSchema, config: OptInterConfig) -> None:
        super().__init__()
        if not config.hidden or config.pair_width < 1 or config.cross_rows < 1:
            raise SettingError(
                f"hidden {config.hidden}, pair_width {config.pair_width}, cross_rows {config.cross_rows}: "
                "expected one or more of each"
            )
        self.schema, self.config = schema, config
        width, std = config.embedding_width, config.embedding_std
        self.embedding = FeatureEmbedding(schema, width + config.pair_width, std=std)
        self.user_ids, self.item_ids = _Ids(schema, USER_SIDE), _Ids(schema, ITEM_SIDE)
        user, item = _fields(schema, USER_SIDE), _fields(schema, ITEM_SIDE)
        methods = _methods(config, user + item)
        groups = {
            "user": combinations(enumerate(user), 2),
            "across": product(enumerate(user), enumerate(item)),
            "item": combinations(enumerate(item), 2),
        }
        self.groups = nn.ModuleDict()
        for name, found in groups.items():
            pairs = [_pair(schema, config, left, right, methods) for left, right in found]
            if pairs:
                group = PairGroup(pairs, config.pair_width, std=std)
                if group.out_width:
                    self.groups[name] = group
        user_width = self.embedding.num_user_slots * width + self._width("user")
        item_width = self.embedding.num_item_slots * width + self._width("across") + self._width("item")
        self.first = SplitLinear(user_width, item_width, config.hidden[0])
        self.layers = nn.Sequential(*_layers(config))
        self.head = linear(config.hidden[-1], len(schema.tasks))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Inputs by signature name -> logits [N, T]."""
        row_N = features[ROW]
        if self.training:
            self.steps += 1
        heat = self._heat()
        user_RSX, item_NSX = self.embedding(features)
        width = self.config.embedding_width
        user_RSD, item_NSD = user_RSX[:, :, width:], item_NSX[:, :, width:]
        item_id_NS = self.item_ids(features)

        of_user, of_item = [flat(user_RSX[:, :, :width])], [flat(item_NSX[:, :, :width])]
        if "user" in self.groups or "across" in self.groups:
            user_id_RS = self.user_ids(features)
        if "user" in self.groups:
            of_user.append(self.groups["user"]((user_RSD, user_RSD), (user_id_RS, user_id_RS), heat))
        if "across" in self.groups:
            user_NSD, user_id_NS = user_RSD.index_select(0, row_N), user_id_RS.index_select(0, row_N)
            of_item.append(self.groups["across"]((user_NSD, item_NSD), (user_id_NS, item_id_NS), heat))
        if "item" in self.groups:
            of_item.append(self.groups["item"]((item_NSD, item_NSD), (item_id_NS, item_id_NS), heat))
        first_NH = self.first(torch.cat(of_user, dim=1), torch.cat(of_item, dim=1), row_N)
        logits: Tensor = self.head(self.layers(first_NH))
        return logits

    def output_biases(self) -> list[Tensor]:
        """Return the constants of the logits, T numbers in all."""
        return [self.head.bias]

    def chosen(self) -> tuple[str, ...]:
        """Return what the pairs do, or now prefer, for `methods`; naive ones are left out."""
        found: dict[str, str] = {}
        for group in self.groups.values():
            assert isinstance(group, PairGroup)
            found |= group.chosen()
        return tuple(f"{pair}={method}" for pair, method in found.items() if method != METHODS[-1])

    def shares(self) -> dict[str, dict[str, float]]:
        """While searching, by pair how much it takes of each of METHODS; else nothing."""
        found: dict[str, dict[str, float]] = {}
        for group in self.groups.values():
            assert isinstance(group, PairGroup)
            found |= group.shares(self._heat())
        return found

    def _heat(self) -> Tensor:
        return (1 - self.config.cooling * self.steps).clamp(min=_COLDEST)

    def _width(self, name: str) -> int:
        if name not in self.groups:
            return 0
        group = self.groups[name]
        assert isinstance(group, PairGroup)
        return group.out_width


class _Ids(nn.Module):
    """The id of each slot of a side, int64 [rows, S]; zero where a slot has not exactly one."""

    column_S: Tensor
    cardinality_S: Tensor

    def __init__(self, schema: FeatureSchema, entities: Sequence[Entity]) -> None:
        super().__init__()
        self.inputs, columns, cardinalities, at = [], [], [], 0
        for layout in map(schema.layout, entities):
            if layout.num_ids:
                self.inputs.append(input_name(layout.entity, "ids"))
            for entry in layout.fields:
                single = entry.field.single
                columns.append(at + entry.ids.start if single else 0)
                cardinalities.append(schema.cardinality(entry.field) if single else 0)
            at += layout.num_ids
        self.register_buffer("column_S", torch.tensor(columns, dtype=torch.int64), persistent=False)
        self.register_buffer(
            "cardinality_S", torch.tensor(cardinalities, dtype=torch.int64), persistent=False
        )

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        if not self.inputs:  # numbers only: nothing that a pair would hash
            return next(iter(features.values()))[:, :0].to(torch.int64)
        whole = [features[name] for name in self.inputs]
        id_RW = (whole[0] if len(whole) == 1 else torch.cat(whole, dim=1)).to(torch.int64)
        id_RS = id_RW.index_select(1, self.column_S)
        known_RS = (id_RS >= 0) & (id_RS < self.cardinality_S)
        return torch.where(known_RS, id_RS, UNKNOWN)


def _layers(config: OptInterConfig) -> list[nn.Module]:
    """What follows the first Linear."""
    layers: list[nn.Module] = []
    for at, width in enumerate(config.hidden):
        if at:
            layers.append(linear(config.hidden[at - 1], width))
        layers += [nn.LayerNorm(width), nn.ReLU(), nn.Dropout(config.dropout)]
    return layers


def _fields(schema: FeatureSchema, entities: Sequence[Entity]) -> list[Field]:
    return [entry.field for entity in entities for entry in schema.layout(entity).fields]


def _pair(
    schema: FeatureSchema,
    config: OptInterConfig,
    left: tuple[int, Field],
    right: tuple[int, Field],
    methods: Mapping[str, str] | None,
) -> Pair:
    name = f"{left[1].name}*{right[1].name}"
    ids = None
    if left[1].single and right[1].single:
        counts = schema.cardinality(left[1]), schema.cardinality(right[1])
        ids = HashedPair(name, *counts, config.cross_rows)
    method = None if methods is None else methods.get(name, METHODS[-1])
    if method == METHODS[0] and ids is None:
        raise SettingError(f"methods: {name} cannot be memorised: one of them is a list or a plain number")
    return Pair(name, left[0], right[0], ids, method)


def _methods(config: OptInterConfig, fields: Sequence[Field]) -> dict[str, str] | None:
    if config.methods is None:
        return None
    known = {f"{a.name}*{b.name}" for a, b in combinations(fields, 2)}
    methods = {}
    for text in config.methods:
        name, _, method = text.partition("=")
        if name not in known or method not in METHODS:
            raise SettingError(
                f"methods: {text!r} is no pair of fields, in the schema's order, with one of "
                f"{', '.join(METHODS)}; expected such as {min(known, default='a*b')}={METHODS[0]}"
            )
        methods[name] = method
    return methods
