"""docs/schema.md says what the parser does: its blocks are parsed, its keys and messages are the parser's."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rankd_contract import schema_crosses, schema_file, schema_values
from rankd_contract.errors import SchemaError
from rankd_contract.schema import Derive, DType, Entity, FeatureSchema, Kind, OnStale, TransformKind
from rankd_contract.schema_file import parse_schema
from rankd_contract.strict_yaml import read_yaml

PAGE = (Path(__file__).parents[2] / "docs" / "schema.md").read_text(encoding="utf-8")
KEYS = {
    "The file": schema_file._SCHEMA_KEYS,
    "Views": schema_file._VIEW_KEYS,
    "Fields": schema_file._FIELD_KEYS,
    "Crosses": schema_crosses.CROSS_KEYS,
    "Tasks": schema_file._TASK_KEYS,
}
WORDS = [member.value for kind in (Derive, DType, Entity, Kind, OnStale, TransformKind) for member in kind]


@dataclass(frozen=True)
class Block:
    """A fenced block: what it is a part of, whether it is refused, and its text."""

    part: str
    refused: bool
    text: str
    line: int


def blocks() -> list[Block]:
    found = []
    for match in re.finditer(r"^```yaml(?: (\w+))?( refused)?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        line = PAGE.count("\n", 0, match.start()) + 1
        found.append(Block(match[1] or "file", bool(match[2]), match[3], line))
    return found


def parsed(block: Block) -> FeatureSchema:
    """Parse a block, put where it belongs in a small schema."""
    if block.part == "file":
        return parse_schema(block.text)
    part = read_yaml(block.text)
    film = {"name": "film_id", "kind": "categorical", "dtype": "int64", "hash": 99}
    viewer = {"name": "viewer_id", "kind": "categorical", "dtype": "int64", "hash": 99}
    views: list[Any] = [
        {"name": "viewers", "entity": "user", "key": "viewer_id", "fields": [viewer]},
        {"name": "films", "entity": "item", "key": "film_id", "fields": [film]},
    ]
    tasks: list[Any] = [{"name": "liked"}]
    crosses: dict[str, Any] = {}
    if block.part == "view":
        views.append(part)
    elif block.part == "task":
        tasks.append(part)
    elif block.part == "crosses":
        views[1]["fields"] += [
            {"name": "tags", "kind": "multi_value", "dtype": "string", "hash": 99, "max_length": 3},
            {"name": "year", "kind": "numeric", "dtype": "int64", "default": 2000},
        ]
        crosses = {"crosses": part}
    else:
        assert block.part == "field", f"line {block.line}: what is a {block.part}?"
        views.append({"name": "more", "entity": "context", "fields": [part]})
    whole = {"rankd_schema": 1, "name": "page", "views": views, "tasks": tasks, **crosses}
    return parse_schema(json.dumps(whole))


def section(title: str) -> str:
    """The text under a heading of the second level."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> dict[str, list[str]]:
    """The cells of a section's tables by their first one, without its backticks."""
    lines = re.findall(r"^\| `(\w+)` \|(.+)\|$", section(title), re.MULTILINE)
    return {key: [cell.strip() for cell in rest.split(" | ")] for key, rest in lines}


@pytest.mark.parametrize("block", blocks(), ids=lambda block: f"line {block.line}")
def test_a_block_is_read_or_refused_as_the_page_says(block: Block) -> None:
    if not block.refused:
        assert parsed(block).fingerprint
        return
    says = block.text.splitlines()[0].removeprefix("# ")
    with pytest.raises(SchemaError) as refused:
        parsed(block)
    assert says in str(refused.value)


@pytest.mark.parametrize("title", list(KEYS))
def test_every_key_is_in_its_table_and_no_other(title: str) -> None:
    steps = {kind.value for kind in TransformKind} if title == "Fields" else set()
    assert set(rows(title)) - steps == set(KEYS[title])


def test_every_key_is_in_an_example_that_is_read() -> None:
    shown = "".join(block.text for block in blocks() if not block.refused)
    absent = [key for keys in KEYS.values() for key in keys if not re.search(rf"\b{key}:", shown)]
    assert not absent


@pytest.mark.parametrize("word", WORDS)
def test_every_word_the_parser_takes_is_written_as_code(word: str) -> None:
    assert f"`{word}`" in PAGE


def test_the_defaults_are_the_parsers() -> None:
    schema = parse_schema(
        "{rankd_schema: 1, name: x, tasks: [{name: t}], views: [{name: u, entity: user, key: k, fields: "
        "[{name: f, kind: categorical, dtype: int64, hash: 9}]}, {name: i, entity: item, key: k, fields: "
        "[{name: g, kind: categorical, dtype: int64, hash: 9}]}]}"
    )
    (view, _), (task,) = schema.views, schema.tasks
    assert rows("Views")["event_time"][1] == f"`{view.event_time}`"
    assert rows("Views")["on_stale"][1] == f"`{view.on_stale.value}`"
    assert (rows("Views")["max_age"][1], view.max_age_s) == ("none", None)
    assert (rows("Tasks")["label"][1], task.label) == ("the task's name", task.name)
    assert rows("Tasks")["weight"][1] == f"`{task.weight:g}`"
    assert (rows("Fields")["source"][1], view.fields[0].source) == ("the field's name", view.fields[0].name)


def messages() -> list[str]:
    """How each message of the parser starts, as far as it is written out."""
    found = []
    for module in (schema_file, schema_crosses, schema_values):
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "SchemaError"
            ):
                texts = [
                    n.value
                    for n in ast.walk(node)
                    if isinstance(n, ast.Constant) and isinstance(n.value, str)
                ]
                longest = max(texts, key=len, default="")
                # Not only `{path}: {error}`; and a number of 310 digits is nothing for a page.
                if len(longest) > 12 and "a smaller number" not in longest:
                    found.append(longest.strip(" :.")[:24].strip())
    return found


@pytest.mark.parametrize("words", messages())
def test_every_message_is_shown_by_a_refused_example(words: str) -> None:
    assert words in "".join(block.text for block in blocks() if block.refused)
