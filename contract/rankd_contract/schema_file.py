"""Reads a feature schema from YAML and says exactly where it is wrong.

The file holds `rankd_schema: 1`, `name`, `views` (each with `name`, `entity`, `fields` and, where it is
stored, `key`, `event_time`, `max_age`, `on_stale`), `tasks` and, where wanted, `crosses`
(`schema_crosses.py`). Unknown keys are errors with the nearest known one named: a misspelt default would
otherwise be a silent default.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from rankd_contract.errors import SchemaError, YamlError
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
from rankd_contract.schema_crosses import read_crosses
from rankd_contract.schema_values import (
    check_value,
    duration,
    items,
    mapping,
    member,
    name_of,
    number,
    positive,
    shown,
    text_of,
)
from rankd_contract.strict_yaml import line_of, read_text, read_yaml

__all__ = ["load_schema", "parse_schema"]

_DERIVED = {Derive.HOUR_OF_DAY: tuple(range(24)), Derive.DAY_OF_WEEK: tuple(range(7))}
_MAX_ROW_NUMBERS = 131_060  # a packed row states its length in 16 bits of 8-byte words

_SCHEMA_KEYS = ("rankd_schema", "name", "views", "crosses", "tasks")
_VIEW_KEYS = ("name", "entity", "key", "event_time", "max_age", "on_stale", "fields")
_FIELD_KEYS = (
    *("name", "kind", "dtype", "source", "derive", "hash", "vocabulary"),
    *("shares", "transform", "default", "max_length"),
)
_TASK_KEYS = ("name", "label", "weight")


def load_schema(path: Path) -> FeatureSchema:
    """Read a schema file. Raises SchemaError naming the file, the line and the place in it."""
    try:
        text = read_text(path)
    except YamlError as error:
        raise SchemaError(str(error)) from error
    try:
        return parse_schema(text)
    except SchemaError as error:
        line = line_of(text, str(error).removeprefix("the file").removeprefix("."), error.key)
        raise SchemaError(f"{path}{f':{line}' if line else ''}: {error}") from error


def parse_schema(text: str) -> FeatureSchema:
    """Read a schema from YAML (or JSON) text. Raises SchemaError naming the place."""
    try:
        tree = read_yaml(text)
    except YamlError as error:
        raise SchemaError(str(error)) from error
    node = mapping(tree, "the file", _SCHEMA_KEYS)
    if node.get("rankd_schema") != 1:
        raise SchemaError(f"rankd_schema: expected 1, got {shown(node.get('rankd_schema'))}")
    views = tuple(_view(v, f"views[{i}]") for i, v in enumerate(items(node, "views", "the file")))
    tasks = tuple(_task(t, f"tasks[{i}]") for i, t in enumerate(items(node, "tasks", "the file")))
    schema = FeatureSchema(name_of(node, "the file"), views, tasks)
    _check_whole(schema)
    if "crosses" not in node:
        return schema
    return replace(schema, crosses=read_crosses(items(node, "crosses", "the file"), schema))


def _view(tree: Any, at: str) -> FeatureView:
    node = mapping(tree, at, _VIEW_KEYS)
    entity = member(Entity, node.get("entity"), f"{at}.entity")
    stored = entity is not Entity.CONTEXT
    if stored and "key" not in node:
        raise SchemaError(f"{at}: a stored view needs `key`, the column that holds the {entity.value}'s id")
    for key in ("key", "event_time", "max_age", "on_stale"):
        if not stored and key in node:
            raise SchemaError(f"{at}.{key}: context is not stored, so it has no {key}; remove it")
    fields = tuple(_field(f, f"{at}.fields[{i}]") for i, f in enumerate(items(node, "fields", at)))
    return FeatureView(
        name=name_of(node, at),
        entity=entity,
        fields=fields,
        key=text_of(node, "key", at, "") if stored else "",
        event_time=text_of(node, "event_time", at, "event_time"),
        max_age_s=duration(node["max_age"], f"{at}.max_age") if "max_age" in node else None,
        on_stale=member(OnStale, node.get("on_stale", "use_stale"), f"{at}.on_stale"),
    )


def _field(tree: Any, at: str) -> Field:
    named = tree.get("name") if isinstance(tree, dict) else None
    node = mapping(tree, f"{at} ({named})" if isinstance(named, str) else at, _FIELD_KEYS)
    name = name_of(node, at)
    at = f"{at} ({name})"
    kind = member(Kind, node.get("kind"), f"{at}.kind")
    listed = kind in {Kind.SEQUENCE, Kind.MULTI_VALUE}
    if listed and "max_length" not in node:
        raise SchemaError(f"{at}: a {kind.value} field needs `max_length`")
    if not listed and "max_length" in node:
        raise SchemaError(f"{at}.max_length: only sequence and multi_value fields have a length; remove it")
    derive = member(Derive, node["derive"], f"{at}.derive") if "derive" in node else None
    dtype = member(DType, node.get("dtype", "int64" if derive or "shares" in node else None), f"{at}.dtype")
    if derive and dtype is not DType.INT:
        raise SchemaError(f"{at}.dtype: a time to derive from is int64 seconds, got {dtype.value}")
    vocabulary = _vocabulary(node["vocabulary"], dtype, f"{at}.vocabulary") if "vocabulary" in node else None
    if derive and vocabulary is None and "hash" not in node:
        vocabulary = _DERIVED[derive]
    field = Field(
        name=name,
        kind=kind,
        dtype=dtype,
        source=text_of(node, "source", at, name),
        derive=derive,
        hash_buckets=positive(node["hash"], f"{at}.hash") if "hash" in node else None,
        vocabulary=vocabulary,
        shares=text_of(node, "shares", at, "") if "shares" in node else None,
        transforms=_transforms(node.get("transform", []), f"{at}.transform"),
        default=_default(node.get("default"), dtype, f"{at}.default"),
        max_length=positive(node["max_length"], f"{at}.max_length") if listed else 1,
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
        _check_known(field.default, field, f"{at}.default")
    if field.kind is Kind.NUMERIC and not field.bucketized and field.default is None:
        raise SchemaError(
            f"{at}: a numeric field needs `default`, the number used where the value is missing"
        )


def _check_whole(schema: FeatureSchema) -> None:
    views, tasks = [v.name for v in schema.views], [t.name for t in schema.tasks]
    fields = [f.name for v in schema.views for f in v.fields]
    for kind, names in (("views", views), ("fields", fields), ("tasks", tasks)):
        doubled = sorted(name for name, n in Counter(names).items() if n > 1)
        if doubled:
            raise SchemaError(f"{kind}: names must be unique; used twice: {', '.join(doubled[:5])}")
    if not schema.of(Entity.ITEM):
        raise SchemaError(
            "views: no view of entity item: candidates are what is scored, so a ranking needs one; "
            "the rows of a single table, whatever they are, are one item view"
        )
    for i, view in enumerate(schema.views):
        width = view.num_ids + view.num_values
        if width > _MAX_ROW_NUMBERS:
            hint = "lower a `max_length` or split the view"
            raise SchemaError(
                f"views[{i}] ({view.name}): {width} numbers a row, at most {_MAX_ROW_NUMBERS} fit; {hint}"
            )
        for j, field in enumerate(view.fields):
            if field.shares is None:
                continue
            at = f"views[{i}].fields[{j}] ({field.name})"
            owner = schema.fields.get(field.shares)
            if owner is None or owner.shares is not None or owner.kind is Kind.NUMERIC:
                raise SchemaError(
                    f"{at}.shares: '{field.shares}' is not a field with its own hash or vocabulary"
                )
            if owner.dtype is not field.dtype:
                raise SchemaError(f"{at}.dtype: shares {owner.name}, so it must be {owner.dtype.value} too")
            _check_known(field.default, owner, f"{at}.default")


def _task(tree: Any, at: str) -> Task:
    node = mapping(tree, at, _TASK_KEYS)
    name = name_of(node, at)
    weight = number(node.get("weight", 1.0), f"{at}.weight")
    if weight <= 0:
        raise SchemaError(f"{at}.weight: expected a positive number, got {weight}")
    return Task(name, text_of(node, "label", at, name), weight)


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
    kind = member(TransformKind, kind, at)
    if kind is TransformKind.STANDARD:
        node = mapping(argument, f"{at}.standard", ("mean", "std"))
        mean, std = number(node.get("mean"), f"{at}.mean"), number(node.get("std"), f"{at}.std")
        if std <= 0:
            raise SchemaError(f"{at}.std: expected a positive number, got {std}")
        return Transform(kind, mean=mean, std=std)
    if kind is TransformKind.BUCKETIZE:
        if not isinstance(argument, list):
            raise SchemaError(f"{at}.bucketize: expected a list of increasing edges, got {shown(argument)}")
        edges = tuple(number(e, f"{at}.bucketize") for e in argument)
        if not edges or list(edges) != sorted(set(edges)):
            raise SchemaError(f"{at}.bucketize: expected increasing edges, got {shown(list(edges))}")
        return Transform(kind, edges=edges)
    if argument is not None:
        raise SchemaError(f"{at}.{kind.value}: takes no argument, got {shown(argument)}")
    return Transform(kind)


def _vocabulary(tree: Any, dtype: DType, at: str) -> tuple[str | int | float | bool, ...]:
    if not isinstance(tree, list) or not tree:
        raise SchemaError(f"{at}: expected a list of values, got {shown(tree)}")
    for i, value in enumerate(tree):
        check_value(value, dtype, f"{at}[{i}]")
    if len(set(tree)) != len(tree):
        doubled = [v for v, n in Counter(tree).items() if n > 1]
        raise SchemaError(f"{at}: values must be unique; used twice: {shown(doubled)}")
    return tuple(tree)


def _default(value: Any, dtype: DType, at: str) -> str | int | float | bool | None:
    if value is None:
        return None
    check_value(value, dtype, at)
    return float(value) if dtype is DType.FLOAT else value  # 30 and 30.0 are one default


def _check_known(default: Any, owner: Field, at: str) -> None:
    if default is not None and owner.vocabulary is not None and default not in owner.vocabulary:
        known = ", ".join(map(shown, owner.vocabulary[:12]))
        raise SchemaError(f"{at}: expected a value of the vocabulary ({known}), got {shown(default)}")
