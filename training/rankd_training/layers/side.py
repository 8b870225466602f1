"""One side's inputs -> one vector a field ("slot"): ids, lists, sequences, numbers and crosses.

Ids outside their field's range read its unknown row. In list fields id 0 is padding and contributes nothing
(masked mean); elsewhere row 0 is learned like any other. A plain number is its own learned vector times the
value, plus a bias vector. A cross is a slot like any field's, after the side's fields: its ids are made here.

Legend: R rows of the side, W id columns, those of crosses at the end, L length of a list or of all sequences,
V numbers, S slots, E width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

import torch
from torch import Tensor, nn

from rankd_contract.schema import MISSING, UNKNOWN, Entity, FeatureSchema, Field, Kind
from rankd_contract.signature import input_name
from rankd_training.layers.cross_ids import CrossIds

__all__ = ["RowReader", "Side", "SideTokens"]

# Rows of the table, any shape -> their vectors, one more dimension at the end.
RowReader = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class SideTokens:
    """One side with its sequences left position by position.

    Attributes:
        slots_RSE: every field but the sequences, and the crosses; None where there is neither.
        sequence_RLE: the sequence fields one after the other, zero at padding; None where there is none.
        present_RL: 1 where a position holds an id, 0 where it is padding.
    """

    slots_RSE: Tensor | None
    sequence_RLE: Tensor | None
    present_RL: Tensor | None


class _Shape(Enum):
    SINGLE = auto()  # one id a slot
    LIST = auto()  # several ids, pooled to one slot
    SEQUENCE = auto()  # a list whose positions can also be read one by one
    NUMBER = auto()


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring fields of one shape, which become slots in one step. A list is a run of its own."""

    shape: _Shape
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Read:
    """What one side's inputs hold, before it becomes slots: its ids, their table rows, its numbers."""

    ids_RW: Tensor | None
    embedded_RWE: Tensor | None
    number_RVE: Tensor | None

    def slots(self, run: _Run) -> Tensor:
        """-> [rows, slots of the run, E]."""
        if run.shape is _Shape.NUMBER:
            assert self.number_RVE is not None
            return self.number_RVE[:, run.start : run.stop]
        assert self.ids_RW is not None
        assert self.embedded_RWE is not None
        piece_RLE = self.embedded_RWE[:, run.start : run.stop]
        if run.shape is _Shape.SINGLE:
            return piece_RLE
        return _mean_of_present(piece_RLE, self.ids_RW[:, run.start : run.stop])

    def positions(self, run: _Run) -> tuple[Tensor, Tensor]:
        """-> a sequence [rows, L, E], zero at padding, and which positions are present [rows, L]."""
        assert self.ids_RW is not None
        assert self.embedded_RWE is not None
        piece_RLE = self.embedded_RWE[:, run.start : run.stop]
        present_RL = (self.ids_RW[:, run.start : run.stop] != MISSING).to(piece_RLE.dtype)
        return piece_RLE * present_RL.unsqueeze(2), present_RL


class Side(nn.Module):
    """The slots of entities that share their rows. Owns no table: both sides read the same one."""

    cardinality_W: Tensor
    start_W: Tensor
    listed_W: Tensor

    def __init__(
        self, schema: FeatureSchema, entities: Sequence[Entity], tables: Mapping[str, slice], width: int
    ) -> None:
        super().__init__()
        layouts = [schema.layout(entity) for entity in entities]
        self._id_inputs = [input_name(at.entity, "ids") for at in layouts if at.num_ids]
        self._value_inputs = [input_name(at.entity, "values") for at in layouts if at.num_values]
        fields = [entry.field for at in layouts for entry in at.fields]
        crosses = [c for c in schema.crosses if schema.of_item(c) is (Entity.ITEM in entities)]
        self.cross_ids = CrossIds(schema, crosses) if crosses else None
        self._runs = _runs(fields, len(crosses))
        self.num_slots = len(fields) + len(crosses)
        self.sequence_lengths = tuple(f.max_length for f in fields if f.kind is Kind.SEQUENCE)
        of_column = [f for f in fields for _ in range(f.num_ids)]
        owners = [f.name if f.name in tables else schema.table(f).name for f in of_column]
        first_rows = [tables[name].start for name in (*owners, *(c.name for c in crosses))]
        cardinalities = [*map(schema.cardinality, of_column), *map(schema.cardinality, crosses)]
        self.register_buffer("cardinality_W", torch.tensor(cardinalities).int(), persistent=False)
        self.register_buffer("start_W", torch.tensor(first_rows).int(), persistent=False)
        listed = torch.tensor([_is_list(f) for f in of_column] + [False] * len(crosses), dtype=torch.bool)
        self.register_buffer("listed_W", listed, persistent=False)
        num_values = sum(at.num_values for at in layouts)
        self.scale_VE = nn.Parameter(torch.empty(num_values, width)) if num_values else None
        self.shift_VE = nn.Parameter(torch.empty(num_values, width)) if num_values else None

    def forward(self, features: Mapping[str, Tensor], read_rows: RowReader) -> Tensor:
        """-> [rows, S, E]."""
        read = self._read(features, read_rows)
        return _joined([read.slots(run) for run in self._runs])

    def tokens(self, features: Mapping[str, Tensor], read_rows: RowReader) -> SideTokens:
        """-> the slots of this side that are no sequences, and its sequences."""
        read = self._read(features, read_rows)
        slots = [read.slots(run) for run in self._runs if run.shape is not _Shape.SEQUENCE]
        sequences = [read.positions(run) for run in self._runs if run.shape is _Shape.SEQUENCE]
        return SideTokens(
            _joined(slots) if slots else None,
            _joined([embedded_RLE for embedded_RLE, _ in sequences]) if sequences else None,
            _joined([present_RL for _, present_RL in sequences]) if sequences else None,
        )

    def _read(self, features: Mapping[str, Tensor], read_rows: RowReader) -> _Read:
        ids_RW = embedded_RWE = number_RVE = None
        if self._id_inputs:
            ids_RW = self._ids(features)
            embedded_RWE = read_rows(self._rows(ids_RW))
        if self.scale_VE is not None and self.shift_VE is not None:
            value_RV = _joined([features[name] for name in self._value_inputs])
            number_RVE = value_RV.unsqueeze(2) * self.scale_VE + self.shift_VE
        return _Read(ids_RW, embedded_RWE, number_RVE)

    def rows_read(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return the rows of the table that these inputs read, in any order, more than once."""
        if not self._id_inputs:
            return torch.zeros(0, dtype=torch.int32)
        ids_RW = self._ids(features)
        padding_RW = (ids_RW == MISSING) & self.listed_W
        return self._rows(ids_RW)[~padding_RW]

    def _ids(self, features: Mapping[str, Tensor]) -> Tensor:
        given = [features[name] for name in self._id_inputs]
        return _joined(given if self.cross_ids is None else [*given, self.cross_ids(features)])

    def _rows(self, ids_RW: Tensor) -> Tensor:
        # The runtime's gather does not check bounds on every device, so the graph does.
        known_RW = (ids_RW >= 0) & (ids_RW < self.cardinality_W)
        return torch.where(known_RW, ids_RW, UNKNOWN) + self.start_W

    @torch.no_grad()
    def initialise(self, std: float | None) -> None:
        """Set the vectors of plain numbers as a table row would be; their biases start at zero."""
        if self.scale_VE is None or self.shift_VE is None:
            return
        if std is None:
            nn.init.xavier_uniform_(self.scale_VE)
        else:
            self.scale_VE.normal_(0.0, std)
        self.shift_VE.zero_()


def _mean_of_present(embedded_RLE: Tensor, ids_RL: Tensor) -> Tensor:
    """Mean over the ids that are not padding -> [R, 1, E]; zero for an empty list."""
    present_RL = (ids_RL != MISSING).to(embedded_RLE.dtype)
    count_R1 = present_RL.sum(1, keepdim=True).clamp(min=1.0)
    share_R1L = (present_RL / count_R1).unsqueeze(1)
    return torch.matmul(share_R1L, embedded_RLE)


def _joined(pieces: Sequence[Tensor]) -> Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces), dim=1)


def _runs(fields: Sequence[Field], num_crosses: int) -> tuple[_Run, ...]:
    runs: list[_Run] = []
    at_ids = at_values = 0
    slots = [(_shape(field), field.num_ids) for field in fields]
    for shape, num_ids in (*slots, *[(_Shape.SINGLE, 1)] * num_crosses):
        if shape is _Shape.NUMBER:
            run = _Run(shape, at_values, at_values + 1)
            at_values += 1
        else:
            run = _Run(shape, at_ids, at_ids + num_ids)
            at_ids += num_ids
        last = runs[-1] if runs else None
        if last and last.shape is run.shape in {_Shape.SINGLE, _Shape.NUMBER} and last.stop == run.start:
            runs[-1] = _Run(run.shape, last.start, run.stop)
        else:
            runs.append(run)
    return tuple(runs)


def _shape(field: Field) -> _Shape:
    if field.num_ids == 0:
        return _Shape.NUMBER
    if field.kind is Kind.SEQUENCE:
        return _Shape.SEQUENCE
    return _Shape.SINGLE if field.single else _Shape.LIST


def _is_list(field: Field) -> bool:
    return field.kind in {Kind.SEQUENCE, Kind.MULTI_VALUE}
