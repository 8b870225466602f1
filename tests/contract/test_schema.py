from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rankd_contract.schema import Entity, FeatureSchema
from rankd_contract.schema_file import load_schema, parse_schema
from tests.support.example_schema import EXAMPLE, EXAMPLE_YAML

GOLDEN = Path(__file__).parent / "golden"
Tree = dict[str, Any]


def read(tree: Tree) -> FeatureSchema:
    return parse_schema(yaml.safe_dump(tree, sort_keys=False))


def tree() -> Tree:
    return copy.deepcopy(dict(yaml.safe_load(EXAMPLE_YAML)))


def shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        rng.shuffle(keys)
        return {k: shuffled(value[k], rng) for k in keys}
    return [shuffled(v, rng) for v in value] if isinstance(value, list) else value


def test_the_canonical_form_and_its_fingerprints_never_change() -> None:
    schema = load_schema(GOLDEN / "schema.yaml")
    golden = json.loads((GOLDEN / "schema.json").read_text(encoding="utf-8"))
    assert json.loads(schema.canonical) == golden["canonical"]
    assert f"{schema.fingerprint:016x}" == golden["fingerprint"]
    found = {v.name: f"{schema.row_fingerprint(v):016x}" for v in schema.views}
    assert found == golden["row_fingerprints"]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_keys_does_not_matter(seed: int) -> None:
    assert read(shuffled(tree(), random.Random(seed))).canonical == EXAMPLE.canonical


def test_comments_layout_and_notation_do_not_matter() -> None:
    commented = "# films\n" + EXAMPLE_YAML.replace("max_age: 30d", "max_age:   720h # a month")
    commented = commented.replace("default: 30\n", "default: 30.0\n").replace("weight: 2", "weight: 2.0")
    assert commented != EXAMPLE_YAML
    assert parse_schema(commented).fingerprint == EXAMPLE.fingerprint
    assert parse_schema(json.dumps(tree())).fingerprint == EXAMPLE.fingerprint


def test_what_is_written_out_equals_what_is_left_to_its_default() -> None:
    written = tree()
    written["views"][1].update(event_time="event_time", on_stale="use_stale")
    written["views"][0]["fields"][1]["source"] = "gender"
    written["tasks"][0].update(label="click", weight=1)
    assert read(written).fingerprint == EXAMPLE.fingerprint


MATTERS_TO_ROWS: dict[str, Callable[[Tree], object]] = {
    "view name": lambda t: t["views"][0].update(name="user_card"),
    "entity": lambda t: t["views"][0].update(entity="item"),
    "field name": lambda t: t["views"][0]["fields"][0].update(name="years"),
    "order of fields": lambda t: t["views"][0]["fields"].reverse(),
    "a field less": lambda t: t["views"][0]["fields"].pop(),
    "dtype": lambda t: t["views"][0]["fields"][0].update(dtype="int64"),
    "transform": lambda t: t["views"][0]["fields"][0].update(transform="log1p"),
    "mean": lambda t: t["views"][0]["fields"][0]["transform"][1]["standard"].update(mean=3.6),
    "edges": lambda t: t["views"][0]["fields"][3]["transform"].update(bucketize=[1, 5, 26]),
    "vocabulary": lambda t: t["views"][0]["fields"][1].update(vocabulary=["F", "M", "X"]),
    "order of a vocabulary": lambda t: t["views"][0]["fields"][1].update(vocabulary=["M", "F"]),
}
MATTERS_TO_READING: dict[str, Callable[[Tree], object]] = {
    "default": lambda t: t["views"][0]["fields"][0].update(default=31),
    "source": lambda t: t["views"][0]["fields"][0].update(source="years"),
    "age limit": lambda t: t["views"][0].update(max_age="31d"),
    "on_stale": lambda t: t["views"][0].update(on_stale="use_stale"),
    "event time": lambda t: t["views"][0].update(event_time="seen_at"),
    "key": lambda t: t["views"][0].update(key="uid"),
    "schema name": lambda t: t.update(name="other"),
    "another view": lambda t: t["views"][2]["fields"][1].update(hash=301),
    "context": lambda t: t["views"][3]["fields"].pop(),
    "task": lambda t: t["tasks"].pop(),
    "label": lambda t: t["tasks"][0].update(label="clicked"),
    "weight": lambda t: t["tasks"][1].update(weight=3),
}


@pytest.mark.parametrize("what", MATTERS_TO_ROWS)
def test_what_decides_the_bytes_of_a_row_changes_both_fingerprints(what: str) -> None:
    changed = tree()
    MATTERS_TO_ROWS[what](changed)
    schema = read(changed)
    assert schema.fingerprint != EXAMPLE.fingerprint
    assert schema.row_fingerprint(schema.views[0]) != EXAMPLE.row_fingerprint(EXAMPLE.views[0])


@pytest.mark.parametrize("what", MATTERS_TO_READING)
def test_what_decides_only_how_rows_are_read_leaves_stored_rows_readable(what: str) -> None:
    changed = tree()
    MATTERS_TO_READING[what](changed)
    schema = read(changed)
    assert schema.fingerprint != EXAMPLE.fingerprint
    assert schema.row_fingerprint(schema.views[0]) == EXAMPLE.row_fingerprint(EXAMPLE.views[0])


def test_a_row_depends_on_the_table_that_a_field_shares() -> None:
    changed = tree()
    changed["views"][2]["fields"][0]["hash"] = 6000
    schema = read(changed)
    history, before = schema.view("user_history"), EXAMPLE.view("user_history")
    assert schema.row_fingerprint(history) != EXAMPLE.row_fingerprint(before)


def test_a_layout_lines_up_the_fields_of_an_entity_view_by_view() -> None:
    layout = EXAMPLE.layout(Entity.USER)
    assert (layout.num_ids, layout.num_values) == (10, 1)
    found = [(f.field.name, f.view, f.ids.start, f.ids.stop, f.values.stop) for f in layout.fields]
    assert found == [
        ("age", "user_profile", 0, 0, 1),
        ("gender", "user_profile", 0, 1, 1),
        ("member", "user_profile", 1, 2, 1),
        ("visits", "user_profile", 2, 3, 1),
        ("recent", "user_history", 3, 7, 1),
        ("tags", "user_history", 7, 10, 1),
    ]


@pytest.mark.parametrize("entity", list(Entity))
def test_a_layout_has_no_gap_and_no_overlap(entity: Entity) -> None:
    layout = EXAMPLE.layout(entity)
    ids = [i for f in layout.fields for i in range(f.ids.start, f.ids.stop)]
    values = [i for f in layout.fields for i in range(f.values.start, f.values.stop)]
    assert ids == list(range(layout.num_ids))
    assert values == list(range(layout.num_values))
    assert layout.num_ids == sum(v.num_ids for v in EXAMPLE.of(entity))
    assert layout.num_values == sum(v.num_values for v in EXAMPLE.of(entity))


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("gender", 2 + 2),
        ("member", 2 + 2),
        ("visits", 2 + 4),  # three edges cut four buckets
        ("recent", 2 + 5000),
        ("tags", 2 + 1000),
        ("item", 2 + 5000),
        ("hour", 2 + 24),
        ("weekday", 2 + 7),
        ("price", 0),
        ("age", 0),
    ],
)
def test_a_table_has_a_row_for_every_id(name: str, rows: int) -> None:
    assert EXAMPLE.cardinality(EXAMPLE.fields[name]) == rows


def test_a_shared_field_uses_its_owners_table() -> None:
    assert EXAMPLE.table(EXAMPLE.fields["recent"]) is EXAMPLE.fields["item"]
    assert EXAMPLE.table(EXAMPLE.fields["tags"]) is EXAMPLE.fields["tags"]


def test_an_unknown_view_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        EXAMPLE.view("films")
