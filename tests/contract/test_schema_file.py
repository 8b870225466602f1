from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rankd_contract.errors import SchemaError
from rankd_contract.schema import DType, Entity, Kind, OnStale, Task, TransformKind
from rankd_contract.schema_file import load_schema, parse_schema
from tests.support.example_schema import EXAMPLE, EXAMPLE_YAML

Tree = dict[str, Any]
Change = Callable[[Tree], None]


def changed(change: Change) -> str:
    tree = copy.deepcopy(yaml.safe_load(EXAMPLE_YAML))
    change(tree)
    return yaml.safe_dump(tree)


def field(tree: Tree, name: str) -> Tree:
    (found,) = [f for v in tree["views"] for f in v["fields"] if f["name"] == name]
    assert isinstance(found, dict)
    return found


def put(name: str, key: str, value: Any) -> Change:
    return lambda tree: field(tree, name).__setitem__(key, value)


def drop(name: str, key: str) -> Change:
    return lambda tree: field(tree, name).__delitem__(key)


def view(at: int, key: str, value: Any) -> Change:
    return lambda tree: tree["views"][at].__setitem__(key, value)


def add(at: int, **entries: Any) -> Change:
    return lambda tree: tree["views"][at]["fields"].append(entries)


def task(at: int, key: str, value: Any) -> Change:
    return lambda tree: tree["tasks"][at].__setitem__(key, value)


def scale(**argument: Any) -> Change:
    return put("age", "transform", {"standard": argument})


def cut(argument: Any) -> Change:
    return put("visits", "transform", {"bucketize": argument})


def both(first: Change, second: Change) -> Change:
    def apply(tree: Tree) -> None:
        first(tree)
        second(tree)

    return apply


def top(key: str, value: Any) -> Change:
    return lambda tree: tree.__setitem__(key, value)


MISTAKES: list[tuple[str, Change, tuple[str, ...]]] = [
    # the file
    ("other format", top("rankd_schema", 2), ("rankd_schema", "expected 1, got 2")),
    ("unknown key on top", top("taks", []), ("the file: unknown key 'taks'", "did you mean 'tasks'?")),
    ("no views", top("views", []), ("the file.views", "not empty")),
    ("views not a list", top("views", {"a": 1}), ("the file.views",)),
    ("no tasks", top("tasks", None), ("the file.tasks",)),
    ("no name", top("name", None), ("the file.name", "got None")),
    ("name with a space", top("name", "my model"), ("the file.name", "'my model'")),
    ("no item view", lambda t: t["views"].__delitem__(2), ("no view of entity item", "single table")),
    # views
    ("view not a mapping", lambda t: t["views"].__setitem__(1, 7), ("views[1]", "a mapping", "got 7")),
    ("unknown key in a view", view(0, "max_agee", 1), ("views[0]: unknown key 'max_agee'", "'max_age'?")),
    ("entity", view(1, "entity", "users"), ("views[1].entity", "user, item, context", "'users'")),
    ("key missing", lambda t: t["views"][1].__delitem__("key"), ("views[1]", "`key`", "user's id")),
    ("key null", view(1, "key", None), ("views[1].key", "None")),
    ("key empty", view(1, "key", ""), ("views[1].key", "''")),
    ("event_time null", view(0, "event_time", None), ("views[0].event_time", "None")),
    ("context with a key", view(3, "key", "x"), ("views[3].key", "context is not stored")),
    ("context with an age", view(3, "max_age", "1d"), ("views[3].max_age", "context is not stored")),
    ("age in words", view(0, "max_age", "a day"), ("views[0].max_age", "15m, 12h, 30d", "'a day'")),
    ("age null", view(0, "max_age", None), ("views[0].max_age", "None")),
    ("age zero", view(0, "max_age", 0), ("views[0].max_age",)),
    ("age zero with a unit", view(0, "max_age", "0s"), ("views[0].max_age", "'0s'")),
    ("age true", view(0, "max_age", True), ("views[0].max_age",)),
    ("age infinite", view(0, "max_age", float("inf")), ("views[0].max_age", "inf")),
    ("age NaN", view(0, "max_age", float("nan")), ("views[0].max_age", "nan")),
    ("age beyond floats", view(0, "max_age", 10**400), ("views[0].max_age",)),
    ("age with 400 digits", view(0, "max_age", "9" * 400 + "d"), ("views[0].max_age",)),
    ("on_stale", view(0, "on_stale", "defualt"), ("views[0].on_stale", "use_stale, default", "'defualt'")),
    ("no fields", view(0, "fields", []), ("views[0].fields",)),
    ("row too long", put("recent", "max_length", 200_000), ("views[1] (user_history)", "131", "max_length")),
    # fields
    (
        "unknown key in a field",
        put("age", "defalt", 1),
        ("fields[0] (age): unknown key 'defalt'", "'default'?"),
    ),
    ("unlike any key", put("age", "zzz", 1), ("unknown key 'zzz'", "known keys: name, kind")),
    ("key that is no text", lambda t: field(t, "age").__setitem__("7", 1), ("unknown key '7'",)),
    ("field without name", drop("age", "name"), ("views[0].fields[0].name", "got None")),
    ("kind", put("age", "kind", "number"), ("(age).kind", "categorical, numeric", "'number'")),
    ("kind a list", put("age", "kind", [1]), ("(age).kind", "[1]")),
    ("no dtype", drop("age", "dtype"), ("(age).dtype", "string, int64, float32, bool", "None")),
    ("dtype", put("age", "dtype", "float64"), ("(age).dtype", "'float64'")),
    ("source null", put("age", "source", None), ("(age).source", "None")),
    ("source a number", put("age", "source", 3), ("(age).source", "3")),
    ("shares null", put("recent", "shares", None), ("(recent).shares", "None")),
    ("sequence without a length", drop("recent", "max_length"), ("(recent)", "needs `max_length`")),
    ("length of a single value", put("gender", "max_length", 3), ("(gender).max_length", "remove it")),
    ("length 0", put("recent", "max_length", 0), ("(recent).max_length", "above 0", "got 0")),
    ("length true", put("recent", "max_length", True), ("(recent).max_length", "True")),
    ("hash 0", put("title", "hash", 0), ("(title).hash", "got 0")),
    ("hash 1.5", put("title", "hash", 1.5), ("(title).hash", "1.5")),
    ("hash too large", put("title", "hash", 2**31), ("(title).hash", str(2**31))),
    ("hash null", put("title", "hash", None), ("(title).hash", "None")),
    ("two ways", put("title", "vocabulary", ["a"]), ("(title)", "exactly one of", "it has 2")),
    ("no way", drop("title", "hash"), ("(title)", "exactly one of", "it has 0")),
    ("numeric with hash", put("price", "hash", 5), ("(price)", "transformed, not looked up")),
    ("numeric string", put("visits", "dtype", "string"), ("(visits).dtype", "int64 or float32", "string")),
    ("numeric derived", lambda t: field(t, "hour").update(kind="numeric", default=1), ("(hour)",)),
    ("categorical float", put("title", "dtype", "float32"), ("(title).dtype", "float32 cannot be looked up")),
    ("categorical transform", put("title", "transform", "log1p"), ("(title).transform", "remove it")),
    ("derive", put("hour", "derive", "hour"), ("(hour).derive", "hour_of_day, day_of_week", "'hour'")),
    ("derive of a string", put("hour", "dtype", "string"), ("(hour).dtype", "int64", "string")),
    # vocabularies
    ("vocabulary not a list", put("gender", "vocabulary", "F"), ("(gender).vocabulary", "a list", "'F'")),
    ("vocabulary empty", put("gender", "vocabulary", []), ("(gender).vocabulary", "[]")),
    ("yes and no", put("gender", "vocabulary", ["F", True]), ("(gender).vocabulary[1]", "quote them")),
    ("wrong type", put("gender", "vocabulary", ["F", 3]), ("(gender).vocabulary[1]", "string, got 3")),
    ("bool among ints", put("item", "vocabulary", [1, True]), ("(item).vocabulary[1]", "True")),
    ("int too large", put("item", "vocabulary", [2**63]), ("(item).vocabulary[0]", "64-bit")),
    ("twice", put("gender", "vocabulary", ["F", "M", "F"]), ("(gender).vocabulary", "unique", "['F']")),
    ("no Unicode", put("gender", "vocabulary", ["\ud800"]), ("(gender).vocabulary[0]", "UTF-8")),
    # defaults
    ("default of a list", put("recent", "default", 3), ("(recent).default", "remove it")),
    ("default of a wrong type", put("age", "default", "x"), ("(age).default", "float32, got 'x'")),
    ("default true for a number", put("age", "default", True), ("(age).default", "True")),
    ("numeric without default", drop("age", "default"), ("(age)", "needs `default`")),
    ("default NaN", put("age", "default", float("nan")), ("(age).default", "nan")),
    ("default infinite", put("age", "default", float("inf")), ("(age).default", "inf")),
    ("default beyond float32", put("age", "default", 1e300), ("(age).default", "float32")),
    ("default beyond floats", put("age", "default", 10**400), ("(age).default", "float32")),
    ("default beyond int64", put("stock", "default", 2**63), ("(stock).default", "64-bit")),
    ("default not in the vocabulary", put("gender", "default", "X"), ("(gender).default", "'F', 'M'", "'X'")),
    ("default hour 24", put("hour", "default", 24), ("(hour).default", "24")),
    (
        "default not in the shared vocabulary",
        both(
            both(drop("item", "hash"), put("item", "vocabulary", [1, 2])),
            add(0, name="x", kind="categorical", shares="item", default=3),
        ),
        ("(x).default", "1, 2", "got 3"),
    ),
    # transforms
    ("transform", put("age", "transform", "log"), ("(age).transform", "log1p, standard, bucketize", "'log'")),
    ("transform null", put("age", "transform", None), ("(age).transform", "expected one of")),
    ("two in one", put("age", "transform", {"log1p": None, "standard": {}}), ("(age).transform",)),
    ("log1p with an argument", put("age", "transform", {"log1p": 3}), ("(age).transform.log1p", "3")),
    ("standard without std", scale(mean=0), ("(age).transform.std", "None")),
    ("std 0", scale(mean=0, std=0), ("(age).transform.std", "positive")),
    ("unknown in standard", scale(sd=1), ("standard: unknown key 'sd'", "'std'?")),
    ("mean NaN", scale(mean=float("nan"), std=1), ("transform.mean", "nan")),
    ("mean beyond floats", scale(mean=10**400, std=1), ("transform.mean",)),
    (
        "edges missing",
        put("visits", "transform", "bucketize"),
        ("(visits).transform.bucketize", "increasing"),
    ),
    ("edges a number", cut(5), ("(visits).transform.bucketize", "5")),
    ("edges a word", cut("12"), ("(visits).transform.bucketize", "'12'")),
    ("edges equal", cut([1, 1]), ("bucketize", "increasing edges", "[1.0, 1.0]")),
    ("edges falling", cut([2, 1]), ("bucketize", "increasing edges")),
    ("edge NaN", cut([float("nan")]), ("bucketize", "nan")),
    (
        "bucketize first",
        put("visits", "transform", [{"bucketize": [1]}, "log1p"]),
        ("(visits).transform", "last step"),
    ),
    # sharing and names
    ("shares nobody", put("recent", "shares", "films"), ("(recent).shares", "'films'")),
    ("shares a number", put("recent", "shares", "price"), ("(recent).shares", "'price'")),
    (
        "shares a sharer",
        add(1, name="x", kind="categorical", shares="recent"),
        ("(x).shares", "'recent'"),
    ),
    ("shares another type", put("recent", "shares", "title"), ("(recent).dtype", "title", "string")),
    ("field twice", put("title", "name", "price"), ("names must be unique", "price")),
    ("field twice in two views", put("title", "name", "age"), ("names must be unique", "age")),
    ("view twice", view(1, "name", "user_profile"), ("names must be unique", "user_profile")),
    (
        "field twice, named as a view",
        both(put("age", "name", "request"), put("title", "name", "request")),
        ("names must be unique", "request"),
    ),
    (
        "task twice, named as a view",
        both(task(0, "name", "request"), task(1, "name", "request")),
        ("names must be unique", "request"),
    ),
    # tasks
    ("task twice", task(1, "name", "click"), ("names must be unique", "click")),
    ("unknown key in a task", task(0, "wieght", 1), ("tasks[0]: unknown key 'wieght'", "'weight'?")),
    ("task name", task(0, "name", "1st"), ("tasks[0].name", "'1st'")),
    ("label null", task(0, "label", None), ("tasks[0].label", "None")),
    ("weight 0", task(0, "weight", 0), ("tasks[0].weight", "positive", "got 0")),
    ("weight true", task(0, "weight", True), ("tasks[0].weight", "True")),
    ("weight infinite", task(0, "weight", float("inf")), ("tasks[0].weight", "inf")),
    ("weight beyond floats", task(0, "weight", 10**400), ("tasks[0].weight",)),
]


@pytest.mark.parametrize(("change", "says"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_refused_and_its_place_named(change: Change, says: tuple[str, ...]) -> None:
    with pytest.raises(SchemaError) as refused:
        parse_schema(changed(change))
    for part in says:
        assert part in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the file: expected a mapping"),
        ("[1, 2]", "the file: expected a mapping"),
        ("a: [", "not valid YAML"),
        ("a: !!python/object/apply:os.system [true]", "not valid YAML"),
        ("\x00", "not valid YAML"),
        ("[" * 20_000, "nested too deeply"),
        ("{a: " * 3_000, "nested too deeply"),
        ("rankd_schema: 1\nname: a\nname: b\n", "'name' is given twice"),
    ],
    ids=["empty", "list", "broken", "python tag", "NUL", "brackets", "braces", "key twice"],
)
def test_text_that_is_no_schema_is_refused(text: str, says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        parse_schema(text)


def test_a_bomb_of_aliases_is_refused_in_a_short_message() -> None:
    layers = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    layers += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    with pytest.raises(SchemaError) as refused:
        parse_schema("{rankd_schema: 1, name: {" + ", ".join(layers) + "}, views: [*a29], tasks: []}")
    assert len(str(refused.value)) < 400


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
), st.data())  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_value_put_anywhere_gives_a_schema_or_a_schema_error(value: Any, data: st.DataObject) -> None:
    tree = yaml.safe_load(EXAMPLE_YAML)
    node: Any = tree
    while True:
        key = data.draw(st.sampled_from(list(node) if isinstance(node, dict) else list(range(len(node)))))
        below = node[key]
        if not isinstance(below, dict | list) or not below or data.draw(st.integers(0, 3)) == 0:
            node[key] = value
            break
        node = below
    try:
        schema = parse_schema(yaml.safe_dump(tree))
    except SchemaError:
        return
    assert schema.fingerprint


def test_a_file_that_is_wrong_is_named(tmp_path: Path) -> None:
    path = tmp_path / "films.yaml"
    with pytest.raises(SchemaError, match=r"films\.yaml: cannot be read"):
        load_schema(path)
    path.write_text("rankd_schema: 7")
    with pytest.raises(SchemaError, match=r"films\.yaml:1: rankd_schema: expected 1, got 7"):
        load_schema(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SchemaError, match=r"films\.yaml: cannot be read"):
        load_schema(path)
    path.write_text(EXAMPLE_YAML, encoding="utf-8")
    assert load_schema(path) == EXAMPLE


@pytest.mark.parametrize(
    ("typed", "instead", "place"),
    [
        ("dtype: int32", "dtype: int64, default: 0", "views[0].fields[1] (age).dtype"),
        ("", "kind: numeric, ", "views[0].fields[1] (age).kind"),
        ("entity: films", "entity: item", "views[0].entity"),
        ("weight: heavy", "weight: 1.0", "tasks[0].weight"),
        ("vocabulary: [1, two]", "hash: 5", "views[0].fields[0] (film).vocabulary[1]"),
        ("wait: 1.0", "weight: 1.0", "tasks[0]"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, typed: str, instead: str, place: str) -> None:
    lines = [
        "rankd_schema: 1",
        "name: films",
        "views:",
        "  - name: film",
        "    entity: item",
        "    key: film_id",
        "    fields:",
        "      - {name: film, kind: categorical, dtype: int64, hash: 5}",
        "      - {name: age, kind: numeric, dtype: int64, default: 0}",
        "tasks:",
        "  - name: liked",
        "    weight: 1.0",
    ]
    (wrong,) = [number for number, line in enumerate(lines, 1) if instead in line]
    path = tmp_path / "films.yaml"
    path.write_text("\n".join(lines).replace(instead, typed))
    with pytest.raises(SchemaError, match=re.escape(f"films.yaml:{wrong}: {place}: ")):
        load_schema(path)


@pytest.mark.parametrize("key", ["entity.type", "key of item", "fields[0]", "größe mit", "a b"])
def test_the_line_of_a_key_that_nobody_knows_is_its_own(tmp_path: Path, key: str) -> None:
    path = tmp_path / "films.yaml"
    path.write_text(
        f"rankd_schema: 1\nname: films\nviews:\n  - name: film\n    entity: item\n    {key}: 65\n"
    )
    with pytest.raises(SchemaError, match=re.escape("films.yaml:6: views[0]: unknown key")):
        load_schema(path)


def test_a_schema_says_what_the_file_says() -> None:
    fields = EXAMPLE.fields
    assert EXAMPLE.name == "example"
    assert [v.name for v in EXAMPLE.stored_views] == ["user_profile", "user_history", "item_profile"]
    assert [v.name for v in EXAMPLE.of(Entity.USER)] == ["user_profile", "user_history"]
    assert EXAMPLE.view("user_profile").max_age_s == 30 * 86400
    assert EXAMPLE.view("item_profile").max_age_s == 12 * 3600
    assert EXAMPLE.view("user_history").max_age_s is None
    assert EXAMPLE.view("user_profile").on_stale is OnStale.DEFAULT
    assert EXAMPLE.view("item_profile").on_stale is OnStale.USE
    assert EXAMPLE.view("user_profile").event_time == "updated_at"
    assert EXAMPLE.view("item_profile").event_time == "event_time"
    assert [t.kind for t in fields["age"].transforms] == [TransformKind.LOG1P, TransformKind.STANDARD]
    assert (fields["item"].source, fields["title"].source) == ("item_id", "title")
    assert fields["recent"].kind is Kind.SEQUENCE
    assert fields["hour"].dtype is DType.INT
    assert fields["hour"].vocabulary == tuple(range(24))
    assert fields["weekday"].vocabulary == tuple(range(7))
    assert EXAMPLE.tasks == (Task("click", "click", 1.0), Task("buy", "bought", 2.0))


def test_exponents_are_numbers_as_json_and_most_tools_write_them() -> None:
    written = parse_schema(EXAMPLE_YAML.replace("std: 0.5", "std: 5e-1").replace("mean: 3.5", "mean: +35E-1"))
    assert written.fingerprint == EXAMPLE.fingerprint


def test_a_field_and_a_view_may_share_a_name() -> None:
    assert "item_profile" in parse_schema(changed(put("title", "name", "item_profile"))).fields


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("90s", 90.0),
        ("15m", 900.0),
        ("1.5h", 5400.0),
        ("30d", 2592000.0),
        (5, 5.0),
        (0.5, 0.5),
    ],
)
def test_a_duration_is_read_with_its_unit(text: object, seconds: float) -> None:
    assert parse_schema(changed(view(0, "max_age", text))).view("user_profile").max_age_s == seconds
