"""docs/training.md says what the settings of training and of every model are.

`python -m tests.house.test_training_page` writes it.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

from rankd_training.models import registry
from rankd_training.settings import TrainSettings

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
HEAD = """# Settings of training

`rankd train --set NAME=VALUE` sets those of the first table, `--set model.NAME=VALUE` those of a model; a
file for `--settings` has both, by model (`rankd tune` writes one). From the docstrings of the code, whose
words these are, by `python -m tests.house.test_training_page`.

## Every run

"""
# What `rankd train` has options of its own for.
PLACES = {"examples", "schema", "output", "model", "model_config"}
ENTRY = re.compile(r"^    (\w+): (.*(?:\n {8,}.*)*)", re.MULTILINE)


def meanings(of: type[Any]) -> dict[str, str]:
    """What a dataclass's docstring says of each attribute."""
    _, _, entries = (inspect.getdoc(of) or "").partition("Attributes:")
    return {name: " ".join(words.split()) for name, words in ENTRY.findall(entries)}


def table(of: type[Any], without: set[str] = frozenset()) -> str:  # type: ignore[assignment]
    rows = ["| name | default | meaning |", "|---|---|---|"]
    said = meanings(of)
    for field in dataclasses.fields(of):
        if field.name not in without:
            default = (
                field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            )
            meaning = said[field.name].replace("|", "\\|")
            rows.append(f"| `{field.name}` | `{default}` | {meaning} |")
    return "\n".join(rows) + "\n"


def page() -> str:
    parts = [HEAD, table(TrainSettings, PLACES)]
    parts += [f"\n## {name}\n\n{table(registry.config_type(name))}" for name in registry.names()]
    return "".join(parts)


def test_the_page_says_what_the_code_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m tests.house.test_training_page`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
