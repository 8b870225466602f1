from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankd_contract.errors import ContractError, SchemaError, YamlError
from rankd_contract.schema_file import parse_schema
from rankd_contract.strict_yaml import read_text, read_yaml
from tests.support.example_schema import EXAMPLE_YAML


def refusal(read: Callable[[str], object], text: str) -> str:
    """What reading says, or nothing where it succeeds."""
    try:
        read(text)
    except ContractError as error:
        return str(error)
    return ""


def test_plain_values_and_aliases_are_read_and_exponents_are_numbers() -> None:
    assert read_yaml("a: &x [1, 1e-3, no]\nb: *x\n") == {"a": [1, 0.001, False], "b": [1, 0.001, False]}
    assert read_yaml("2020-01-01: 1") == {datetime.date(2020, 1, 1): 1}
    assert read_yaml("") is None


@pytest.mark.parametrize("key", ["a", "<<"])
def test_what_yaml_would_silently_overwrite_is_refused_with_its_line(key: str) -> None:
    with pytest.raises(YamlError, match=r"^line 3: "):
        read_yaml(f"x:\n  a: 1\n  {key}: {{a: 2}}\n")


def test_a_bomb_of_merges_is_refused_before_it_is_merged() -> None:
    layers = ["a0: &a0 {k: 1}"]
    layers += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 30)]
    with pytest.raises(SchemaError, match="`<<` is not read"):
        parse_schema("\n".join(layers))


@given(st.text(max_size=60) | st.text("[]{}:&*!?-<> \n\"'|>#%@,a1.", max_size=60))
def test_arbitrary_text_is_read_or_refused_in_one_line(text: str) -> None:
    assert len(refusal(read_yaml, text).splitlines()) <= 1


@given(st.integers(0, len(EXAMPLE_YAML)), st.text(max_size=4))
def test_a_schema_with_anything_typed_into_it_is_read_or_refused(at: int, typed: str) -> None:
    assert len(refusal(parse_schema, EXAMPLE_YAML[:at] + typed + EXAMPLE_YAML[at:]).splitlines()) <= 1


def test_what_is_no_yaml_is_named_with_line_and_column_alone() -> None:
    assert refusal(read_yaml, "a: 1\nb: {c: d: 2}") == (
        "not valid YAML: line 2, column 9: expected ',' or '}', but got ':'"
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"a: \xff")
    for path, says in (
        (tmp_path, "Is a directory"),
        (tmp_path / "binary", "byte 3 is not UTF-8"),
        (tmp_path / "nowhere", "No such file"),
        (Path("/dev/zero"), "more than 16 MiB"),
        (Path("a\0b"), "null byte"),
    ):
        with pytest.raises(YamlError, match=says):
            read_text(path)
