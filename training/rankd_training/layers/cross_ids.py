"""Ids of the schema's crosses, in the graph: the torch twin of `rankd_contract/crosses.py`.

Both fields may be of any entity; the ids of a user's or context's field reach a candidate through `in_row`.

Legend: R user rows, N candidates, F fields that are crossed, X crosses; "rows" is R for crosses among fields
of user and context, else N.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rankd_contract.schema import FIRST_VALUE, UNKNOWN, Cross, Entity, FeatureSchema
from rankd_contract.signature import ROW, input_name
from rankd_training.layers.pair_hash import PairHash

__all__ = ["ITEM_SIDE", "USER_SIDE", "CrossIds"]

USER_SIDE = (Entity.USER, Entity.CONTEXT)
ITEM_SIDE = (Entity.ITEM,)


class CrossIds(nn.Module):
    """Ids of some crosses, all of which have the same rows; at least one cross."""

    cardinality_F: Tensor
    left_X: Tensor
    right_X: Tensor

    def __init__(self, schema: FeatureSchema, crosses: Sequence[Cross]) -> None:
        super().__init__()
        crossed = {name for cross in crosses for name in cross.of}
        self.user = _Columns(schema, USER_SIDE, crossed)
        self.item = _Columns(schema, ITEM_SIDE, crossed)
        place = {name: at for at, name in enumerate([*self.user.fields, *self.item.fields])}
        numbers = {
            "cardinality_F": [schema.cardinality(schema.fields[name]) for name in place],
            "left_X": [place[cross.of[0]] for cross in crosses],
            "right_X": [place[cross.of[1]] for cross in crosses],
        }
        for name, values in numbers.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.int64), persistent=False)
        self.hash = PairHash([schema.hashed_pair(cross) for cross in crosses])

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Inputs by signature name -> int32 [rows, X]."""
        parts = []
        if self.user.fields:
            id_RF = self.user(features)
            parts.append(id_RF.index_select(0, features[ROW]) if self.item.fields else id_RF)
        if self.item.fields:
            parts.append(self.item(features))
        id_F = torch.cat(parts, dim=1).to(torch.int64)
        id_F = torch.where((id_F >= 0) & (id_F < self.cardinality_F), id_F, UNKNOWN)
        left_X, right_X = id_F.index_select(1, self.left_X), id_F.index_select(1, self.right_X)
        lower_X = torch.minimum(left_X, right_X)  # missing before unknown before values
        row_X = self.hash.within(left_X - FIRST_VALUE, right_X - FIRST_VALUE)
        return torch.where(lower_X < FIRST_VALUE, lower_X, row_X + FIRST_VALUE).to(torch.int32)


class _Columns(nn.Module):
    """The ids of some fields of one side."""

    column_F: Tensor

    def __init__(self, schema: FeatureSchema, side: Sequence[Entity], wanted: set[str]) -> None:
        super().__init__()
        self.inputs: list[str] = []
        columns: dict[str, int] = {}
        at = 0
        for layout in map(schema.layout, side):
            own = {f.field.name: at + f.ids.start for f in layout.fields if f.field.name in wanted}
            if own:
                self.inputs.append(input_name(layout.entity, "ids"))
                columns |= own
                at += layout.num_ids
        self.fields = list(columns)
        column_F = torch.tensor(list(columns.values()), dtype=torch.int64)
        self.register_buffer("column_F", column_F, persistent=False)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """-> [rows, F]."""
        whole = [features[name] for name in self.inputs]
        return (whole[0] if len(whole) == 1 else torch.cat(whole, dim=1)).index_select(1, self.column_F)
