"""Values that training never saw, such as tomorrow's users, read a row that was learned for them.

In training some ids of a field are hidden behind the field's unknown row, so that this row learns what to
expect of a stranger; afterwards every row of the field's table that no training row reads takes its values.
Without this, such rows keep their random start, which is noise. Graph and request stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from rankd_contract.schema import UNKNOWN, Entity, FeatureSchema, Kind
from rankd_contract.signature import input_name
from rankd_training.errors import SettingError
from rankd_training.layers.embedding import FeatureEmbedding

__all__ = ["UnknownValues"]

AT_ONCE = 1 << 20  # rows of a table that are copied together


class UnknownValues:
    """Hides ids in batches, and settles the rows of tables that training did not read.

    Args:
        schema: says where the fields are.
        rates: share of ids to hide by field name, 0 to 1; best near the share of values that are new when
            the model is used. Categorical fields with a table of their own only.

    Raises:
        SettingError: a name is no such field, or a rate is out of range.
    """

    def __init__(self, schema: FeatureSchema, rates: Mapping[str, float]) -> None:
        # A combination that training never saw reads a random row of its cross, as a value of its field.
        crossed = [cross.name for cross in schema.crosses if not rates.keys().isdisjoint(cross.of)]
        self._settled = [*rates, *crossed]
        for name, rate in rates.items():
            field = schema.fields.get(name)
            if field is None or field.kind is not Kind.CATEGORICAL or field.shares:
                raise SettingError(f"unknown_rates: {name!r} is no categorical field with a table of its own")
            if not 0 <= rate <= 1:
                raise SettingError(f"unknown_rates: expected a share from 0 to 1 for {name!r}, got {rate}")
        self._rate_W: dict[str, Tensor] = {}
        for entity in Entity:
            layout = schema.layout(entity)
            rate_W = torch.zeros(layout.num_ids)
            for entry in layout.fields:
                rate_W[entry.ids] = rates.get(entry.field.name, 0.0)
            if rate_W.any():
                self._rate_W[input_name(entity, "ids")] = rate_W

    def hide(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a batch in which some ids are unknown, drawn from torch's default generator."""
        hidden = dict(features)
        for name, rate_W in self._rate_W.items():
            ids_NW = features[name]
            hidden[name] = torch.where(torch.rand(ids_NW.shape) < rate_W, UNKNOWN, ids_NW)
        return hidden

    def seen(self, embedding: FeatureEmbedding, batches: Iterable[Mapping[str, Tensor]]) -> Tensor:
        """Say which rows of the table some inputs read, for `settle` -> bool [rows of the table]."""
        seen = torch.zeros(embedding.num_rows, dtype=torch.bool)
        for features in batches if self._settled else ():
            embedding.mark_read(features, seen)
        return seen

    @torch.no_grad()
    def settle(self, embedding: FeatureEmbedding, seen: Tensor) -> None:
        """Give every row that was not seen, in the tables of the named fields, their unknown row's values.

        The same for crosses of these fields, whose unknown row learns wherever an id was hidden.

        Args:
            embedding: its table is changed in place.
            seen: a flag a row of the table, from `seen`.
        """
        for name in self._settled:
            rows = embedding.rows_of(name)
            unknown_E = embedding.now(torch.tensor([rows.start + UNKNOWN]))[0]
            kept, here = embedding.held_of(rows)
            for mine, seen_here in zip(
                torch.split(here, AT_ONCE), torch.split(seen[kept], AT_ONCE), strict=True
            ):
                mine.copy_(torch.where(seen_here[:, None], mine, unknown_E))
