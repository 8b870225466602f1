"""Pairs become crosses of a schema's text, which stays as it was written wherever it can."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from rankd_contract.schema import Cross
from rankd_contract.schema_file import parse_schema
from rankd_training.recipes.chosen_pairs import with_crosses
from tests.training.fields import CROSSES, MIXED


def test_crosses_are_added_at_the_end_and_all_else_is_as_it_was() -> None:
    text = MIXED + "# the end\n"
    longer = with_crosses(text, ["user_id*item_id", "age*hour"], 5000)
    assert longer.startswith(text)
    expected = (
        Cross("user_id_x_item_id", ("user_id", "item_id"), 5000),
        Cross("age_x_hour", ("age", "hour"), 5000),
    )
    assert parse_schema(longer) == replace(parse_schema(MIXED), crosses=expected)


def test_crosses_that_are_there_stay_and_are_not_made_twice() -> None:
    longer = parse_schema(with_crosses(MIXED + CROSSES, ["hour*age", "user_id*hour", "user_id*item_id"], 9))
    before = parse_schema(MIXED + CROSSES).crosses
    assert longer.crosses == (*before, Cross("user_id_x_hour", ("user_id", "hour"), 9))
    assert with_crosses(MIXED + CROSSES, ["age*hour"], 9) == MIXED + CROSSES


def test_no_pair_leaves_the_text_alone() -> None:
    assert with_crosses(MIXED, [], 9) == MIXED


@pytest.mark.parametrize("write", [json.dumps, lambda tree: yaml.safe_dump(tree, default_flow_style=True)])
def test_a_schema_in_json_or_in_one_line_is_written_anew(write) -> None:  # type: ignore[no-untyped-def]
    text = write(yaml.safe_load(MIXED))
    longer = parse_schema(with_crosses(text, ["user_id*item_id"], 9))
    assert longer == replace(parse_schema(MIXED), crosses=longer.crosses)
    assert [cross.of for cross in longer.crosses] == [("user_id", "item_id")]


def test_words_that_yaml_reads_as_booleans_keep_their_names() -> None:
    text = MIXED.replace("user_id, kind", "'no', kind").replace("name: hour", "name: 'on'")
    (cross,) = parse_schema(with_crosses(text, ["no*on"], 9)).crosses
    assert cross.of == ("no", "on")


def test_a_name_that_is_taken_or_too_long_is_counted_instead() -> None:
    taken = MIXED.replace("name: price", "name: user_id_x_item_id")
    (cross,) = parse_schema(with_crosses(taken, ["user_id*item_id"], 9)).crosses
    assert cross.name == "cross_1"
    long = "u" * 60
    crosses = parse_schema(
        with_crosses(
            MIXED.replace("{name: user_id,", f"{{name: {long},"), [f"{long}*item_id", f"{long}*hour"], 9
        )
    ).crosses
    assert [cross.name for cross in crosses] == ["cross_1", "cross_2"]
