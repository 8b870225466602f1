"""docs/faults.md says which test holds which promise of the fault matrix.

`python -m tests.house.test_faults_page` writes it.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"
MATRIX = ROOT / "tests" / "faults" / "matrix.yaml"
NAMED = re.compile(r"test_([a-z]\d+)_")
HEAD = """# Faults

What was done to rankd on purpose, and what must happen. Each line is held by the tests named beside it, over
real processes, sockets and stores; `scripts/test -m load` runs those that need minutes and a quiet machine.
Made by `python -m tests.house.test_faults_page` from `tests/faults/matrix.yaml`.
"""
TABLE = "\n\n| row | fault | what must happen | tests |\n|---|---|---|---|\n"


def matrix() -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load(MATRIX.read_text(encoding="utf-8"))
    return tree


def rows() -> dict[str, tuple[str, str]]:
    return {row: tuple(words) for letter in matrix().values() for row, words in letter["rows"].items()}


def holders() -> dict[str, list[str]]:
    """Tests by row: those with its marker, and those whose name begins with it."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                named = NAMED.match(node.name)
                marked = [row for decorator in node.decorator_list for row in _marked(decorator)]
                for row in [*marked, *([named[1].upper()] if named else [])]:
                    found[row].add(f"{path.relative_to(ROOT / 'tests')}::{node.name}")
    return {row: sorted(tests) for row, tests in found.items()}


def _marked(decorator: ast.expr) -> list[str]:
    if not (isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.fault"):
        return []
    return [str(row.value) for row in decorator.args if isinstance(row, ast.Constant)]


def page() -> str:
    held, parts = holders(), [HEAD]
    for letter, section in matrix().items():
        parts.append(f"\n## {letter}. {section['title']}{TABLE}")
        for row, (fault, promise) in section["rows"].items():
            tests = ", ".join(_link(test) for test in held.get(row, ())) or "none yet"
            parts.append(f"| {row} | {fault} | {promise} | {tests} |\n")
    return "".join(parts)


def _link(test: str) -> str:
    file, name = test.split("::")
    words = name.removeprefix("test_").replace("_", " ")
    return f"[{words}](../tests/{file})"


def test_the_page_says_what_the_tests_hold() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m tests.house.test_faults_page`"


def test_every_marked_row_is_one_of_the_matrix() -> None:
    letters = set(matrix())
    assert {row for row in holders() if row[0] in letters} <= rows().keys()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
