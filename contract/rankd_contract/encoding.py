"""Raw columns -> the id and value blocks a model reads. The same code runs offline and online.

Encoding keeps missing values visible (id 0, NaN) so that a stored row still says what was null;
`Encoder.fill_defaults` then puts the declared defaults in, at training time and after a row is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rankd_contract.columns import Column, Values
from rankd_contract.errors import SchemaMismatch, ValueTypeError
from rankd_contract.hashing import Strings, bucket, hash_ints, hash_strings, salt
from rankd_contract.schema import (
    FIRST_VALUE,
    MISSING,
    UNKNOWN,
    Derive,
    DType,
    Entity,
    EntityLayout,
    FeatureSchema,
    Field,
    FieldLayout,
    Kind,
    TransformKind,
)

__all__ = ["Block", "Encoder"]

_SECONDS_A_DAY = 86_400
_THURSDAY = 3  # the weekday of 1 January 1970, counting from Monday = 0


@dataclass(frozen=True, slots=True)
class Block:
    """Encoded rows of one entity: `ids` int32 [n, num_ids], `values` float32 [n, num_values]; C order."""

    ids: NDArray[np.int32]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.ids)

    @classmethod
    def empty(cls, n: int, layout: EntityLayout) -> Block:
        """Return n rows in which every value is missing."""
        return cls(
            np.full((n, layout.num_ids), MISSING, np.int32),
            np.full((n, layout.num_values), np.nan, np.float32),
        )


class Encoder:
    """Encodes the fields of one entity under a schema. Immutable once built; threads may share it."""

    def __init__(self, schema: FeatureSchema, entity: Entity) -> None:
        """Build the vocabularies' look-up tables. Raises SchemaMismatch where two values' hashes collide."""
        self.layout = schema.layout(entity)
        self.by_name: dict[str, FieldLayout] = {f.field.name: f for f in self.layout.fields}
        owners = {f.field.name: schema.table(f.field) for f in self.layout.fields}
        self._owners = owners
        self._salts = {name: salt(owner.name) for name, owner in owners.items()}
        self._vocabularies = {o.name: _Vocabulary(o) for o in owners.values() if o.vocabulary is not None}
        self.defaults = self._default_row()
        self._has_default_ids = bool(self.defaults.ids.any())

    def encode(self, columns: Mapping[str, Column], n: int) -> Block:
        """Encode n rows from columns keyed by source. Raises SchemaMismatch where a column is absent."""
        absent = sorted({f.field.source for f in self.layout.fields} - columns.keys())
        if absent:
            have = ", ".join(sorted(columns)) or "none"
            raise SchemaMismatch(
                f"{self.layout.entity.value}: no column {', '.join(absent)}; columns given: {have}"
            )
        block = Block.empty(n, self.layout)
        for entry in self.layout.fields:
            self.encode_field(entry, columns[entry.field.source], block, slice(None))
        return block

    def encode_field(
        self, at: FieldLayout, column: Column, block: Block, rows: slice | NDArray[np.intp] | Sequence[int]
    ) -> None:
        """Encode one column into the given rows of a block, in place."""
        field = at.field
        if field.kind is Kind.NUMERIC:
            numbers = _transform(np.where(column.valid, _numbers(column.values), np.nan), field)
            if field.bucketized:
                block.ids[rows, at.ids] = numbers.astype(np.int32)[:, None]
                return
            with np.errstate(over="ignore"):
                values = numbers.astype(np.float32)
            if np.isinf(values).any():
                row = int(np.flatnonzero(np.isinf(values))[0])
                raise ValueTypeError(field.name, row, "a number that stays finite", "one out of range")
            block.values[rows, at.values] = values[:, None]
            return
        ids = self._lookup(field, column.values)
        if column.offsets is None:
            block.ids[rows, at.ids] = np.where(column.valid, ids, MISSING)[:, None]
        else:
            padded = _pad(ids, column.offsets, field.max_length)
            block.ids[rows, at.ids] = np.where(column.valid[:, None], padded, MISSING)

    def fill_defaults(self, block: Block) -> Block:
        """Return the block with declared defaults in place of missing values; nothing is NaN afterwards."""
        ids, values = block.ids, block.values
        if self._has_default_ids:
            ids = np.where(ids == MISSING, self.defaults.ids, ids)
        if values.shape[1]:
            values = np.where(np.isnan(values), self.defaults.values, values)
        return Block(ids, values)

    def _lookup(self, field: Field, values: Values) -> NDArray[np.int32]:
        owner = self._owners[field.name]
        hashes = _hash(_derived(values, field.derive), self._salts[field.name])
        if owner.hash_buckets is not None:
            return bucket(hashes, owner.hash_buckets) + np.int32(FIRST_VALUE)
        return self._vocabularies[owner.name].find(hashes)

    def _default_row(self) -> Block:
        row = Block.empty(1, self.layout)
        for entry in self.layout.fields:
            if entry.field.default is not None:
                # A derived field's default is written as the derived value (hour 12), not as a time.
                plain = replace(entry, field=replace(entry.field, derive=None))
                self.encode_field(plain, Column.from_python([entry.field.default], plain.field), row, [0])
        return row


class _Vocabulary:
    """Values of one field, found by binary search over their hashes: no Python object a value."""

    def __init__(self, field: Field) -> None:
        vocabulary = list(field.vocabulary or ())
        values: Values = (
            Strings.from_list([str(v) for v in vocabulary])
            if field.dtype is DType.STRING
            else np.array(vocabulary, np.int64)
        )
        hashes = _hash(values, salt(field.name))
        order = np.argsort(hashes)
        self._hashes, self._ids = hashes[order], (order + FIRST_VALUE).astype(np.int32)
        if len(np.unique(hashes)) != len(hashes):
            raise SchemaMismatch(
                f"field '{field.name}': two values of the vocabulary share a 64-bit hash; rename one"
            )

    def find(self, hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
        at = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        return np.where(self._hashes[at] == hashes, self._ids[at], np.int32(UNKNOWN))


def _derived(values: Values, derive: Derive | None) -> Values:
    if derive is None or isinstance(values, Strings):
        return values
    seconds = values.astype(np.int64)
    if derive is Derive.HOUR_OF_DAY:
        return seconds // 3600 % 24
    return (seconds // _SECONDS_A_DAY + _THURSDAY) % 7


def _hash(values: Values, seed: int) -> NDArray[np.uint64]:
    if isinstance(values, Strings):
        return hash_strings(values, seed)
    return hash_ints(values.astype(np.int64), seed)


def _numbers(values: Values) -> NDArray[np.float64]:
    assert not isinstance(values, Strings)  # the column was typed by a numeric field
    return values.astype(np.float64)


def _transform(x: NDArray[np.float64], field: Field) -> NDArray[np.float64]:
    for step in field.transforms:
        if step.kind is TransformKind.LOG1P:
            x = np.sign(x) * np.log1p(np.abs(x))
        elif step.kind is TransformKind.STANDARD:
            x = (x - step.mean) / step.std
        else:
            ids = np.searchsorted(_edges(step.edges, field.dtype), x, side="right") + FIRST_VALUE
            x = np.where(np.isnan(x), MISSING, ids)
    return x


def _edges(edges: tuple[float, ...], dtype: DType) -> NDArray[np.float64]:
    # A column's numbers were rounded to float32: 0.7 reaches the edge 0.7 only if that is rounded too.
    exact = np.array(edges, np.float64)
    if dtype is not DType.FLOAT:
        return exact
    with np.errstate(over="ignore"):
        return exact.astype(np.float32).astype(np.float64)


def _pad(ids: NDArray[np.int32], offsets: NDArray[np.int64], max_length: int) -> NDArray[np.int32]:
    """Cut ragged lists to their first `max_length` entries (lists come newest first) and pad with 0."""
    lengths = np.minimum(np.diff(offsets), max_length)
    out = np.full((len(lengths), max_length), MISSING, np.int32)
    taken = np.arange(max_length) < lengths[:, None]
    out[taken] = ids[(offsets[:-1, None] + np.arange(max_length))[taken]]
    return out
