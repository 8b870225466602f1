"""YAML read strictly, for files that people write and that must not be misread.

YAML is forgiving where a schema or a settings file must not be: it keeps the last of two equal keys. It reads
`1e-3` as text, which JSON and most tools write for a number; here it is one. Merge keys (`<<`) are refused:
a file of ten lines can stand for more pairs than fit in memory; aliases (`*a`) cost nothing and are read.
"""

from __future__ import annotations

import re
import reprlib
from pathlib import Path
from typing import Any

import yaml

from rankd_contract.errors import YamlError

__all__ = ["MAX_BYTES", "line_of", "read_text", "read_yaml"]

MAX_BYTES = 16 << 20
_EXPONENT = re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$")
_STEP = re.compile(r"\.?([\w-]+)|\[(\d+)\]| \([^)]*\)")
_SHORT = reprlib.Repr()
_SHORT.maxstring = 60
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice, where plain YAML silently keeps the last, and merges."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if key.tag == _MERGE:
                    raise YamlError(f"line {line}: `<<` is not read; write the keys out")
                if key.value in seen:
                    raise YamlError(f"line {line}: key {_SHORT.repr(key.value)} is given twice")
                seen.add(key.value)
        return node


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def read_text(path: Path) -> str:
    """Read a file of at most 16 MiB as UTF-8. Raises YamlError naming it."""
    try:
        with path.open("rb") as file:  # a device or a pipe may never end
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise YamlError(f"{path}: cannot be read: more than {MAX_BYTES >> 20} MiB")
        return content.decode()
    except UnicodeDecodeError as error:
        place = f"byte {error.start} is not UTF-8"
        raise YamlError(f"{path}: cannot be read: {place}; is this a text file?") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise YamlError(f"{path}: cannot be read: {reason}") from error


def read_yaml(text: str) -> Any:
    """Read YAML as plain values. Raises YamlError, in one line, for what is no YAML or is not read here."""
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except RecursionError:
        raise YamlError("not valid YAML: nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        problem = str(error.problem or error.context)
        if problem.startswith("but "):  # the other half of the sentence
            problem = f"{error.context}, {problem}"
        raise YamlError(f"not valid YAML: {place}{_one_line(problem)}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a date or a number that is none
        raise YamlError(f"not valid YAML: {_one_line(error)}") from error


def _one_line(problem: object) -> str:
    return " ".join(str(problem).split())


def line_of(text: str, place: str, key: object = None) -> int | None:
    """Return the line, from 1, of a place such as `views[0].fields[2] (age).dtype`; None where there is none.

    Where only a part of the way is in the text, as for a key that is missing, that part's line; with `key`
    the line of that key of the mapping at the place.
    """
    try:
        node = yaml.compose(text, _Loader)
    except (yaml.YAMLError, YamlError, RecursionError):
        return None
    line, position = None, 0
    while node is not None and (step := _STEP.match(place, position)):
        position, (name, index) = step.end(), step.groups()
        if name is None and index is None:
            continue  # a name in brackets, for people
        found = _child(node, name, index)
        if found is None:
            return line
        mark, node = found
        line = mark.line + 1
    if key is not None and (found := _child(node, str(key), None)) is not None:
        line = found[0].line + 1
    return line


def _child(node: yaml.Node | None, name: str | None, index: str | None) -> tuple[yaml.Mark, yaml.Node] | None:
    """An entry of a mapping or a list, and where it begins."""
    if name is not None and isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == name:
                return key.start_mark, value
    if index is not None and isinstance(node, yaml.SequenceNode):
        for value in node.value[int(index) : int(index) + 1]:
            return value.start_mark, value
    return None
