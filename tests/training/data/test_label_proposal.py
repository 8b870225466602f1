from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rankd_contract.schema_file import parse_schema
from rankd_training.errors import ExamplesError
from tests.training.data.interactions import N, interactions, proposal, proposed, shopping, with_columns


def test_what_may_be_a_second_label_is_no_field_and_is_named(tmp_path: Path) -> None:
    found = proposal(tmp_path, shopping())
    fields = parse_schema(found.text).fields
    assert not {"ordered", "shown_first"} & fields.keys()
    assert "member" in fields, "what is its user's happens to nobody"
    assert "#      - {name: ordered, kind: categorical, dtype: int64, vocabulary: [0, 1]}" in found.text
    assert found.notes[1].startswith("label clicked: its name")
    assert (
        "ordered: may be a label: give --label ordered, or --ignore ordered; left out of the fields"
        in found.notes
    )
    assert "shown_first" in found.notes[3]
    both = proposal(tmp_path, shopping(), labels=("clicked", "ordered"), ignore=("shown_first",))
    assert [task.label for task in parse_schema(both.text).tasks] == ["clicked", "ordered"]
    assert both.notes[1:3] == ("label clicked: named by --label", "label ordered: named by --label")
    assert all(": left out: " in note for note in both.notes[4:])


def test_rows_that_are_nobodys_keep_their_flags_but_for_what_is_called_an_outcome(tmp_path: Path) -> None:
    found = proposal(tmp_path, shopping().drop_columns(["user_id", "recent"]))
    fields = parse_schema(found.text).fields
    assert "ordered" not in fields
    assert {"shown_first", "member"} <= fields.keys()
    assert any(note.startswith("member, shown_first: 0 or 1 too, and fields") for note in found.notes)


@pytest.mark.parametrize(
    ("label", "stray"),
    [("level", "has nulls"), ("bids", r"has \d{3,}"), ("brand", "has values of type string")],
)
def test_a_label_that_is_not_0_or_1_is_refused(tmp_path: Path, label: str, stray: str) -> None:
    with pytest.raises(ExamplesError, match=f"column '{label}': a label is 0 or 1 .*{stray}") as refused:
        proposal(tmp_path, labels=(label,))
    assert "columns of 0 and 1 are member, click" in str(refused.value)


def test_a_label_nobody_named_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ExamplesError, match="columns of 0 and 1 are member, win; say it with --label"):
        proposed(tmp_path, interactions().rename_columns({"click": "win"}))
    with pytest.raises(ExamplesError, match="did you mean 'click'"):
        proposed(tmp_path, labels=("clicks",))


def test_a_constant_among_several_labels_is_no_label_and_outcomes_are_told_from_like_names(
    tmp_path: Path,
) -> None:
    flag = np.random.default_rng(2).integers(0, 2, N)
    none, other = np.zeros(N, np.int8), flag[::-1]
    table = with_columns(label_a=flag, label_b=none, returned=other, returning_visitor=flag)
    found = proposal(tmp_path, table.drop_columns("click"))
    schema = parse_schema(found.text)
    assert [task.label for task in schema.tasks] == ["label_a"]
    rows = proposal(tmp_path, table.drop_columns(["click", "user_id", "recent"]))
    fields = parse_schema(rows.text).fields
    assert "returned" not in fields
    assert "returning_visitor" in fields


def test_a_label_of_words_is_told_what_to_store_and_one_of_one_class_is_refused(tmp_path: Path) -> None:
    words = with_columns(converted=["yes" if k % 3 else "no" for k in range(N)])
    with pytest.raises(ExamplesError, match="'converted': a label is 0 or 1; this column has 'no'"):
        proposal(tmp_path, words, labels=("converted",))
    with pytest.raises(ExamplesError, match="'yes': store whether it is 'yes'"):
        proposal(tmp_path, words.drop_columns("click"))
    alike = with_columns(converted=np.zeros(N, np.int8))
    with pytest.raises(ExamplesError, match=r"a label has both 0 and 1; all .* rows looked at have 0"):
        proposal(tmp_path, alike, labels=("converted",))
