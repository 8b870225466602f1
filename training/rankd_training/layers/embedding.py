"""Inputs of the signature -> one vector a field ("slot"), the user's side once per user row.

All fields live in one table with constant offsets, so a side costs one gather; `side.py` says how its ids and
numbers become slots.

Where processes share a table, each holds some of its rows (`row_share.py`) and reads all through an exchange.

Legend: R user rows, N candidates, S slots, E width, P rows of a piece.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from rankd_contract.schema import Cross, FeatureSchema, Field
from rankd_training.errors import SettingError
from rankd_training.layers.cross_ids import ITEM_SIDE, USER_SIDE
from rankd_training.layers.row_share import current, drawn
from rankd_training.layers.side import RowReader, Side, SideTokens

__all__ = ["ITEM_SIDE", "USER_SIDE", "FeatureEmbedding", "RowExchange", "RowReader", "SideTokens"]

# The same for rows that others hold; each process answers by its reader, for rows counted from its first one.
RowExchange = Callable[[Tensor, RowReader], Tensor]


class FeatureEmbedding(nn.Module):
    """Slots of the user's side (user, then context; R rows) and of the item's side (N rows).

    Args:
        schema: the fields and crosses; slots come in the order of the contract's `slot_names`.
        width: numbers a slot.
        std: standard deviation of the initial values; None is Xavier-uniform, one table a field.
        share: False gives a field that `shares` another's table rows of its own.

    Attributes:
        table: the rows held here: all of them, unless it was made within `row_share.sharing`.
        num_rows: of the whole table.
        held: which of them are here.
        spread: whether other processes hold others.
    """

    def __init__(
        self, schema: FeatureSchema, width: int, *, std: float | None = None, share: bool = True
    ) -> None:
        super().__init__()
        self.width = width
        self._rows = _tables(schema, share=share)
        num_rows, part = max((rows.stop for rows in self._rows.values()), default=0), current()
        self.num_rows, self.held, self.spread = num_rows, part.of(num_rows), part.count > 1
        here = self.held.stop - self.held.start
        self.table = nn.Embedding(here, width, _weight=torch.empty(here, width))
        self.user_side = Side(schema, USER_SIDE, self._rows, width)
        self.item_side = Side(schema, ITEM_SIDE, self._rows, width)
        self.num_user_slots = self.user_side.num_slots
        self.num_item_slots = self.item_side.num_slots
        self._train_reader: RowReader | None = None
        self._exchange: RowExchange | None = None
        self._initialise(std)

    def forward(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Inputs by signature name -> user's slots [R, Su, E] and items' slots [N, Si, E]."""
        read = self._reader()
        item_NSE = self.item_side(features, read)
        # A table without users: its other side has as many rows, and no slot.
        user_RSE = self.user_side(features, read) if self.num_user_slots else item_NSE[:, :0]
        return user_RSE, item_NSE

    def train_through(self, reader: RowReader | None) -> None:
        """Let training read the table through an optimiser, which brings rows up to date; None ends that."""
        self._train_reader = reader

    def read_through(self, exchange: RowExchange) -> None:
        """Read the rows that other processes hold through `exchange`."""
        self._exchange = exchange

    def held_of(self, rows: slice) -> tuple[slice, Tensor]:
        """Return which of some rows are held here, and their vectors, to read or to change."""
        start = min(max(rows.start, self.held.start), self.held.stop)
        stop = max(min(rows.stop, self.held.stop), start)
        first = self.held.start
        return slice(start, stop), self.table.weight[start - first : stop - first]

    @torch.no_grad()
    def now(self, rows: Tensor) -> Tensor:
        """Return the vectors of some rows as they stand; of a shared table all processes ask at once."""
        return self._through(self.table)(rows)

    def tokens(self, features: Mapping[str, Tensor]) -> tuple[SideTokens, SideTokens]:
        """Inputs by signature name -> the user's side and the items' side, sequences not pooled."""
        read = self._reader()
        return self.user_side.tokens(features, read), self.item_side.tokens(features, read)

    def rows_of(self, name: str) -> slice:
        """Return where the table of a field lies that has one of its own, or that of a cross."""
        return self._rows[name]

    def mark_read(self, features: Mapping[str, Tensor], seen: Tensor) -> None:
        """Set, in bool [rows of the table], which rows these inputs read; padding reads none."""
        for side in (self.user_side, self.item_side):
            seen[side.rows_read(features)] = True

    def _reader(self) -> RowReader:
        if not self.training:
            return self._through(self.table)
        return self._through(self._train_reader or self._gather)

    def _through(self, here: RowReader) -> RowReader:
        exchange = self._exchange
        if exchange is None:
            assert not self.spread, "rows are held elsewhere, and nothing was said of how to read them"
            return here
        return lambda rows: exchange(rows, here)

    def _gather(self, rows: Tensor) -> Tensor:
        """Read the table as `table` does; the backward pass is faster and adds up in the same order."""
        return self.table.weight.index_select(0, rows.reshape(-1)).view(*rows.shape, self.width)

    @torch.no_grad()
    def _initialise(self, std: float | None) -> None:
        # As `nn.Embedding` does, so that a seed goes on to mean what it always meant.
        self._draw(slice(0, self.num_rows), nn.init.normal_)
        if std is not None:
            self._draw(slice(0, self.num_rows), partial(nn.init.normal_, std=std))
        else:
            for rows in self._rows.values():
                bound = math.sqrt(6 / (rows.stop - rows.start + self.width))
                self._draw(rows, partial(nn.init.uniform_, a=-bound, b=bound))
        for side in (self.user_side, self.item_side):
            side.initialise(std)

    def _draw(self, rows: slice, fill: Callable[[Tensor], Tensor]) -> None:
        """Draw some rows; every process draws all of them and keeps its own."""
        for first, piece_PE in drawn(rows.stop - rows.start, self.width, fill):
            at = rows.start + first
            kept, here = self.held_of(slice(at, at + len(piece_PE)))
            here.copy_(piece_PE[kept.start - at : kept.stop - at])

    @torch.no_grad()
    def zero_columns(self, columns: slice) -> None:
        """Start some numbers of every slot at zero, such as the weights of a linear term."""
        self.table.weight[:, columns] = 0.0
        for side in (self.user_side, self.item_side):
            if side.scale_VE is not None:
                side.scale_VE[:, columns] = 0.0


def _tables(schema: FeatureSchema, *, share: bool) -> dict[str, slice]:
    """Where each table lies in the one of all, by the name of the field or cross that owns it."""
    tables, at = {}, 0
    fields = [f for f in schema.fields.values() if schema.cardinality(f) and not (share and f.shares)]
    owners: list[Field | Cross] = [*fields, *schema.crosses]
    for owner in owners:
        tables[owner.name] = slice(at, at + schema.cardinality(owner))
        at = tables[owner.name].stop
    if at > torch.iinfo(torch.int32).max:
        raise SettingError(f"schema '{schema.name}' needs {at} table rows; 2^31 - 1 is the most")
    return tables
