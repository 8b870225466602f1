"""Reads a feature schema from YAML and says exactly where it is wrong.

The file holds `rankd_schema: 1`, `name`, `views` (each with `name`, `entity`, `fields` and, where it is
stored, `key`, `event_time`, `max_age`, `on_stale`) and `tasks`. Unknown keys are errors with the nearest
known one named: a misspelt default would otherwise be a silent default.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import yaml

from rankd_contract.errors import SchemaError
from rankd_contract.schema import (
    Derive,
    DType,
    Entity,
    FeatureSchema,
    FeatureView,
    Field,
    Kind,
    OnStale,
    Task,
    Transform,
    TransformKind,
)

__all__ = ["load_schema", "parse_schema"]

_E = TypeVar("_E", bound=StrEnum)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DERIVED = {Derive.HOUR_OF_DAY: tuple(range(24)), Derive.DAY_OF_WEEK: tuple(range(7))}
_PYTHON = {DType.STRING: (str,), DType.INT: (int,), DType.FLOAT: (int, float), DType.BOOL: (bool,)}

_SCHEMA_KEYS = ("rankd_schema", "name", "views", "tasks")
_VIEW_KEYS = ("name", "entity", "key", "event_time", "max_age", "on_stale", "fields")
_FIELD_KEYS = (
    *("name", "kind", "dtype", "source", "derive", "hash", "vocabulary"),
    *("shares", "transform", "default", "max_length"),
)
_TASK_KEYS = ("name", "label", "weight")


def load_schema(path: Path) -> FeatureSchema:
    """Read a schema file. Raises SchemaError naming the file and the place in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"{path}: cannot be read: {error}") from error
    try:
        return parse_schema(text)
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from error


def parse_schema(text: str) -> FeatureSchema:
    """Read a schema from YAML (or JSON) text. Raises SchemaError naming the place."""
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SchemaError(f"not valid YAML: {error}") from error
    node = _mapping(tree, "the file", _SCHEMA_KEYS)
    if node.get("rankd_schema") != 1:
        raise SchemaError(f"rankd_schema: expected 1, got {node.get('rankd_schema')!r}")
    views = tuple(_view(v, f"views[{i}]") for i, v in enumerate(_list(node, "views", "the file")))
    tasks = tuple(_task(t, f"tasks[{i}]") for i, t in enumerate(_list(node, "tasks", "the file")))
    schema = FeatureSchema(_name(node, "the file"), views, tasks)
    _check_whole(schema)
    return schema


def _view(tree: Any, at: str) -> FeatureView:
    node = _mapping(tree, at, _VIEW_KEYS)
    entity = _enum(Entity, node.get("entity"), f"{at}.entity")
    stored = entity is not Entity.CONTEXT
    if stored and "key" not in node:
        raise SchemaError(f"{at}: a stored view needs `key`, the column that holds the {entity.value}'s id")
    for key in ("key", "event_time", "max_age", "on_stale"):
        if not stored and key in node:
            raise SchemaError(f"{at}.{key}: context is not stored, so it has no {key}; remove it")
    fields = tuple(_field(f, f"{at}.fields[{i}]") for i, f in enumerate(_list(node, "fields", at)))
    return FeatureView(
        name=_name(node, at),
        entity=entity,
        fields=fields,
        key=str(node.get("key", "")),
        event_time=str(node.get("event_time", "event_time")),
        max_age_s=_duration(node["max_age"], f"{at}.max_age") if "max_age" in node else None,
        on_stale=_enum(OnStale, node.get("on_stale", "use_stale"), f"{at}.on_stale"),
    )


def _field(tree: Any, at: str) -> Field:
    node = _mapping(tree, at, _FIELD_KEYS)
    name = _name(node, at)
    at = f"{at} ({name})"
    kind = _enum(Kind, node.get("kind"), f"{at}.kind")
    listed = kind in {Kind.SEQUENCE, Kind.MULTI_VALUE}
    if listed and "max_length" not in node:
        raise SchemaError(f"{at}: a {kind.value} field needs `max_length`")
    if not listed and "max_length" in node:
        raise SchemaError(f"{at}.max_length: only sequence and multi_value fields have a length; remove it")
    derive = _enum(Derive, node["derive"], f"{at}.derive") if "derive" in node else None
    given = "int64" if derive else node.get("dtype", "int64" if "shares" in node else None)
    dtype = _enum(DType, given, f"{at}.dtype")
    vocabulary = _vocabulary(node["vocabulary"], dtype, f"{at}.vocabulary") if "vocabulary" in node else None
    if derive and vocabulary is None and "hash" not in node:
        vocabulary = _DERIVED[derive]
    field = Field(
        name=name,
        kind=kind,
        dtype=dtype,
        source=str(node.get("source", name)),
        derive=derive,
        hash_buckets=_positive(node["hash"], f"{at}.hash") if "hash" in node else None,
        vocabulary=vocabulary,
        shares=str(node["shares"]) if "shares" in node else None,
        transforms=_transforms(node.get("transform", []), f"{at}.transform"),
        default=node.get("default"),
        max_length=_positive(node["max_length"], f"{at}.max_length") if listed else 1,
    )
    _check_field(field, at)
    return field


def _check_field(field: Field, at: str) -> None:
    ways = [w for w in (field.hash_buckets, field.vocabulary, field.shares) if w is not None]
    if field.kind is Kind.NUMERIC:
        if ways:
            raise SchemaError(f"{at}: a numeric field is transformed, not looked up; use `transform` only")
        if field.dtype not in {DType.INT, DType.FLOAT}:
            raise SchemaError(f"{at}.dtype: a numeric field is int64 or float32, got {field.dtype.value}")
    else:
        if field.transforms:
            raise SchemaError(f"{at}.transform: only numeric fields are transformed; remove it")
        if len(ways) != 1:
            raise SchemaError(
                f"{at}: needs exactly one of `hash`, `vocabulary`, `shares`; it has {len(ways)}"
            )
        if field.dtype is DType.FLOAT:
            raise SchemaError(
                f"{at}.dtype: float32 cannot be looked up; use int64 or string, or kind numeric"
            )
    if field.default is not None:
        if field.kind in {Kind.SEQUENCE, Kind.MULTI_VALUE}:
            raise SchemaError(f"{at}.default: a list field's default is the empty list; remove it")
        if not _fits(field.default, field.dtype):
            raise SchemaError(f"{at}.default: expected {field.dtype.value}, got {field.default!r}")
    if field.kind is Kind.NUMERIC and not field.bucketized and field.default is None:
        raise SchemaError(
            f"{at}: a numeric field needs `default`, the number used where the value is missing"
        )


def _check_whole(schema: FeatureSchema) -> None:
    names = Counter([v.name for v in schema.views])
    names.update(f.name for v in schema.views for f in v.fields)
    tasks = Counter(t.name for t in schema.tasks)
    doubled = [name for counter in (tasks, names) for name, n in counter.items() if n > 1]
    same_as_view = {v.name for v in schema.views}
    doubled = [d for d in doubled if d not in same_as_view or sum(v.name == d for v in schema.views) > 1]
    if doubled:
        raise SchemaError(f"names must be unique; used twice: {', '.join(sorted(doubled))}")
    for entity in (Entity.USER, Entity.ITEM):
        if not schema.of(entity):
            raise SchemaError(f"views: no view of entity {entity.value}; a ranking needs one")
    for view in schema.views:
        for field in view.fields:
            if field.shares is None:
                continue
            owner = schema.fields.get(field.shares)
            if owner is None or owner.shares is not None or owner.kind is Kind.NUMERIC:
                at = f"view {view.name}, field {field.name}.shares"
                raise SchemaError(f"{at}: '{field.shares}' is not a field with its own hash or vocabulary")
            if owner.dtype is not field.dtype:
                at = f"view {view.name}, field {field.name}.dtype"
                raise SchemaError(f"{at}: shares {owner.name}, so it must be {owner.dtype.value} too")


def _task(tree: Any, at: str) -> Task:
    node = _mapping(tree, at, _TASK_KEYS)
    name = _name(node, at)
    weight = node.get("weight", 1.0)
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 < weight < math.inf:
        raise SchemaError(f"{at}.weight: expected a positive number, got {weight!r}")
    return Task(name, str(node.get("label", name)), float(weight))


def _transforms(tree: Any, at: str) -> tuple[Transform, ...]:
    steps = [_transform(step, at) for step in (tree if isinstance(tree, list) else [tree])]
    if any(s.kind is TransformKind.BUCKETIZE for s in steps[:-1]):
        raise SchemaError(f"{at}: bucketize turns the number into an id, so it must be the last step")
    return tuple(steps)


def _transform(tree: Any, at: str) -> Transform:
    if isinstance(tree, str):
        tree = {tree: None}
    if not isinstance(tree, dict) or len(tree) != 1:
        raise SchemaError(f"{at}: expected one of log1p, standard: {{mean, std}}, bucketize: [edges]")
    ((kind, argument),) = tree.items()
    kind = _enum(TransformKind, kind, at)
    if kind is TransformKind.STANDARD:
        node = _mapping(argument, f"{at}.standard", ("mean", "std"))
        mean, std = _number(node.get("mean"), f"{at}.mean"), _number(node.get("std"), f"{at}.std")
        if std <= 0:
            raise SchemaError(f"{at}.std: expected a positive number, got {std}")
        return Transform(kind, mean=mean, std=std)
    if kind is TransformKind.BUCKETIZE:
        edges = tuple(_number(e, f"{at}.bucketize") for e in argument or ())
        if not edges or list(edges) != sorted(set(edges)):
            raise SchemaError(f"{at}.bucketize: expected increasing edges, got {list(edges)}")
        return Transform(kind, edges=edges)
    return Transform(kind)


def _vocabulary(tree: Any, dtype: DType, at: str) -> tuple[str | int | float | bool, ...]:
    if not isinstance(tree, list) or not tree:
        raise SchemaError(f"{at}: expected a list of values, got {tree!r}")
    for i, value in enumerate(tree):
        if not _fits(value, dtype):
            hint = "; YAML reads yes, no, on, off as booleans: quote them" if isinstance(value, bool) else ""
            raise SchemaError(f"{at}[{i}]: expected {dtype.value}, got {value!r}{hint}")
    if len(set(tree)) != len(tree):
        doubled = [v for v, n in Counter(tree).items() if n > 1]
        raise SchemaError(f"{at}: values must be unique; used twice: {doubled[:5]}")
    return tuple(tree)


def _fits(value: Any, dtype: DType) -> bool:
    return isinstance(value, _PYTHON[dtype]) and (isinstance(value, bool) is (dtype is DType.BOOL))


def _mapping(tree: Any, at: str, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise SchemaError(f"{at}: expected a mapping with {', '.join(known)}, got {tree!r}")
    for key in tree:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
            raise SchemaError(f"{at}: unknown key {key!r}; {hint}")
    return tree


def _list(node: dict[str, Any], key: str, at: str) -> list[Any]:
    value = node.get(key)
    if not isinstance(value, list) or not value:
        raise SchemaError(f"{at}.{key}: expected a list that is not empty, got {value!r}")
    return value


def _name(node: dict[str, Any], at: str) -> str:
    name = node.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SchemaError(f"{at}.name: expected a letter, then letters, digits, '_', '.', '-', got {name!r}")
    return name


def _enum(kind: type[_E], value: Any, at: str) -> _E:
    try:
        return kind(value)
    except ValueError:
        raise SchemaError(f"{at}: expected one of {', '.join(kind)}, got {value!r}") from None


def _positive(value: Any, at: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31 - 2:
        raise SchemaError(f"{at}: expected a whole number above 0, got {value!r}")
    return value


def _number(value: Any, at: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise SchemaError(f"{at}: expected a finite number, got {value!r}")
    return float(value)


def _duration(value: Any, at: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return float(value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise SchemaError(f"{at}: expected seconds or a duration such as 15m, 12h, 30d, got {value!r}")
    return float(match[1]) * _SECONDS[match[2]]
