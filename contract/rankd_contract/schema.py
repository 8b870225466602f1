"""The feature schema: which fields there are, whose they are, and how raw values become numbers.

A schema is written by people in YAML (`schema_file.py` reads it) and agreed on by machines through its
canonical form and fingerprint. Encoded ids share one convention in every field: 0 is missing or padding,
1 is unknown, real values start at 2; so `cardinality` is the number of values plus 2.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from rankd_contract.pair_hash import HashedPair

__all__ = [
    "FIRST_VALUE",
    "MISSING",
    "UNKNOWN",
    "Cross",
    "DType",
    "Derive",
    "Entity",
    "EntityLayout",
    "FeatureSchema",
    "FeatureView",
    "Field",
    "FieldLayout",
    "Kind",
    "OnStale",
    "Task",
    "Transform",
    "TransformKind",
]

MISSING, UNKNOWN, FIRST_VALUE = 0, 1, 2

Scalar = str | int | float | bool


class Entity(StrEnum):
    """What a field describes. Context fields come with the request and are never stored."""

    USER = "user"
    ITEM = "item"
    CONTEXT = "context"


class Kind(StrEnum):
    """How a field's values are shaped."""

    CATEGORICAL = "categorical"
    NUMERIC = "numeric"
    SEQUENCE = "sequence"
    MULTI_VALUE = "multi_value"


class DType(StrEnum):
    """Type of the raw values, before encoding."""

    STRING = "string"
    INT = "int64"
    FLOAT = "float32"
    BOOL = "bool"


class Derive(StrEnum):
    """What is read off a Unix time in seconds (UTC) before encoding."""

    HOUR_OF_DAY = "hour_of_day"
    DAY_OF_WEEK = "day_of_week"


class OnStale(StrEnum):
    """What to do with a stored row that is older than its view's max age."""

    USE = "use_stale"
    DEFAULT = "default"


class TransformKind(StrEnum):
    """Steps from a raw number to a model input; `bucketize` turns it into an id and comes last."""

    LOG1P = "log1p"
    STANDARD = "standard"
    BUCKETIZE = "bucketize"


@dataclass(frozen=True, slots=True)
class Transform:
    """One step of a numeric field: `log1p` is sign(x)·log(1+|x|), `standard` is (x - mean) / std."""

    kind: TransformKind
    mean: float = 0.0
    std: float = 1.0
    edges: tuple[float, ...] = ()


@dataclass(frozen=True)
class Field:
    """One input column of a model.

    Exactly one of `hash_buckets`, `vocabulary` and `shares` is set where values become ids; `shares`
    names the field whose encoding and embedding table are used (a user's recent films share the film's).
    """

    name: str
    kind: Kind
    dtype: DType
    source: str
    derive: Derive | None = None
    hash_buckets: int | None = None
    vocabulary: tuple[Scalar, ...] | None = None
    shares: str | None = None
    transforms: tuple[Transform, ...] = ()
    default: Scalar | None = None
    max_length: int = 1

    @property
    def bucketized(self) -> bool:
        """True where a number becomes an id."""
        return bool(self.transforms) and self.transforms[-1].kind is TransformKind.BUCKETIZE

    @property
    def num_ids(self) -> int:
        """Width of the field in the id block."""
        return 0 if self.kind is Kind.NUMERIC and not self.bucketized else self.max_length

    @property
    def num_values(self) -> int:
        """Width of the field in the block of numbers."""
        return 1 - min(self.num_ids, 1)

    @property
    def single(self) -> bool:
        """True where a row has exactly one id of the field: no list, no plain number."""
        return self.num_ids == 1 and self.kind not in {Kind.SEQUENCE, Kind.MULTI_VALUE}


@dataclass(frozen=True, slots=True)
class Cross:
    """Two fields read together, with a table of its own: the graph makes its ids from theirs (`crosses.py`).

    `rows` is how many rows combinations of values may take; where they are fewer, each has its own.
    """

    name: str
    of: tuple[str, str]
    rows: int


@dataclass(frozen=True)
class FeatureView:
    """Fields of one entity that are stored as one packed row, written and aged as a whole."""

    name: str
    entity: Entity
    fields: tuple[Field, ...]
    key: str = ""
    event_time: str = "event_time"
    max_age_s: float | None = None
    on_stale: OnStale = OnStale.USE

    def reads_key(self, field: Field) -> bool:
        """Whether a field of this view is looked up by the view's id, so that its value needs no row."""
        looked_up = field.kind is Kind.CATEGORICAL and field.derive is None and field.dtype is not DType.BOOL
        return looked_up and field.source == self.key and field in self.fields

    @property
    def num_ids(self) -> int:
        """Ids in one row."""
        return sum(f.num_ids for f in self.fields)

    @property
    def num_values(self) -> int:
        """Numbers in one row."""
        return sum(f.num_values for f in self.fields)


@dataclass(frozen=True, slots=True)
class Task:
    """One prediction of the model: the probability that the `label` column is 1."""

    name: str
    label: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class FieldLayout:
    """Where a field sits in its entity's id and value blocks."""

    field: Field
    view: str
    ids: slice
    values: slice


@dataclass(frozen=True, slots=True)
class EntityLayout:
    """The columns of one entity: `num_ids` int32 ids and `num_values` float32 numbers a row."""

    entity: Entity
    fields: tuple[FieldLayout, ...]
    num_ids: int
    num_values: int


@dataclass(frozen=True)
class FeatureSchema:
    """All fields and tasks of a model. Equal fingerprints mean equal bytes, equal inputs, equal defaults."""

    name: str
    views: tuple[FeatureView, ...]
    tasks: tuple[Task, ...]
    crosses: tuple[Cross, ...] = ()

    def of(self, entity: Entity) -> tuple[FeatureView, ...]:
        """Return the views of an entity, in their order."""
        return tuple(v for v in self.views if v.entity is entity)

    def view(self, name: str) -> FeatureView:
        """Return the view called `name`; KeyError where there is none."""
        return {v.name: v for v in self.views}[name]

    @cached_property
    def fields(self) -> dict[str, Field]:
        """All fields by name."""
        return {f.name: f for v in self.views for f in v.fields}

    @cached_property
    def stored_views(self) -> tuple[FeatureView, ...]:
        """The views that live in the feature store."""
        return tuple(v for v in self.views if v.entity is not Entity.CONTEXT)

    def table(self, field: Field) -> Field:
        """Return the field that owns the encoding and embedding table `field` uses."""
        return self.fields[field.shares] if field.shares else field

    def hashed_pair(self, cross: Cross) -> HashedPair:
        """Return how a cross's combinations of values become rows; missing and unknown are none."""
        left, right = (self.cardinality(self.fields[name]) - FIRST_VALUE for name in cross.of)
        return HashedPair(cross.name, left, right, cross.rows)

    def of_item(self, cross: Cross) -> bool:
        """True where a cross has a field of the item: it then differs from candidate to candidate."""
        return not {f.name for v in self.of(Entity.ITEM) for f in v.fields}.isdisjoint(cross.of)

    def cardinality(self, field: Field | Cross) -> int:
        """Rows of the embedding table a field's or a cross's ids point into; 0 for plain numbers."""
        if isinstance(field, Cross):
            return FIRST_VALUE + self.hashed_pair(field).num_rows
        owner = self.table(field)
        if owner.hash_buckets is not None:
            return FIRST_VALUE + owner.hash_buckets
        if owner.vocabulary is not None:
            return FIRST_VALUE + len(owner.vocabulary)
        return FIRST_VALUE + len(owner.transforms[-1].edges) + 1 if owner.bucketized else 0

    def layout(self, entity: Entity) -> EntityLayout:
        """Columns of an entity's blocks: views in order, fields in order."""
        at_ids = at_values = 0
        fields = []
        for view in self.of(entity):
            for field in view.fields:
                ids = slice(at_ids, at_ids + field.num_ids)
                values = slice(at_values, at_values + field.num_values)
                fields.append(FieldLayout(field, view.name, ids, values))
                at_ids, at_values = ids.stop, values.stop
        return EntityLayout(entity, tuple(fields), at_ids, at_values)

    @cached_property
    def canonical(self) -> str:
        """One spelling of the schema: sorted JSON with every default written out."""
        views = [{**self._view_bytes(v), **_view_reading(v)} for v in self.views]
        tasks = [{"name": t.name, "label": t.label, "weight": t.weight} for t in self.tasks]
        crosses = [{"name": c.name, "of": list(c.of), "rows": c.rows} for c in self.crosses]
        # A schema without crosses keeps the fingerprint that it had before there were any.
        more = {"crosses": crosses} if crosses else {}
        return _canonical({"format": 1, "name": self.name, "views": views, "tasks": tasks, **more})

    @cached_property
    def fingerprint(self) -> int:
        """64 bits of the canonical form's SHA-256."""
        return _fingerprint(self.canonical)

    def row_fingerprint(self, view: FeatureView) -> int:
        """64 bits over what decides the bytes of a view's rows.

        Defaults, ages, crosses, tasks and other views do not.
        """
        return _fingerprint(_canonical({"format": 1, **self._view_bytes(view)}))

    def _view_bytes(self, view: FeatureView) -> dict[str, Any]:
        fields = [self._field_bytes(f) for f in view.fields]
        return {"view": view.name, "entity": view.entity.value, "fields": fields}

    def _field_bytes(self, field: Field) -> dict[str, Any]:
        owner = self.table(field)
        return {
            "name": field.name,
            "kind": field.kind.value,
            "dtype": field.dtype.value,
            "derive": field.derive,
            "table": owner.name,
            "hash_buckets": owner.hash_buckets,
            "vocabulary": None if owner.vocabulary is None else list(owner.vocabulary),
            "transforms": [
                {"kind": t.kind.value, "mean": t.mean, "std": t.std, "edges": list(t.edges)}
                for t in field.transforms
            ],
            "max_length": field.max_length,
        }


def _view_reading(view: FeatureView) -> dict[str, Any]:
    return {
        "max_age_s": view.max_age_s,
        "on_stale": view.on_stale.value,
        "key": view.key,
        "event_time": view.event_time,
        "defaults": {f.name: f.default for f in view.fields},
        "sources": {f.name: f.source for f in view.fields},
    }


def _canonical(tree: dict[str, Any]) -> str:
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _fingerprint(canonical: str) -> int:
    return int.from_bytes(hashlib.sha256(canonical.encode()).digest()[:8], "big")
