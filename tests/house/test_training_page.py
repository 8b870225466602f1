"""docs/training.md says what the settings of training and of every model are.

`python -m tests.house.test_training_page` writes it.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any

from rankd_training.measures.metrics import FEWEST_IN_BIN, NUM_BINS
from rankd_training.models import registry
from rankd_training.settings import TrainSettings
from rankd_training.yardsticks import registry as yardsticks

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
HEAD = f"""# Settings of training

`rankd train --set NAME=VALUE` sets those of the first table, `--set model.NAME=VALUE` those of a model; a
file for `--settings` has both, by model (`rankd tune` writes one, of the settings searched and no seed).
Values are YAML: `--set 'model.hidden=[64, 32]'`, `--set 'unknown_rates={{user_id: 0.5}}'`. From the
docstrings of the code, whose words these are, by `python -m tests.house.test_training_page`.

What is left at `0`, `auto` or `null` is chosen by the number of rows: a thousand rows need smaller batches
and more epochs than a million ([small tables](results/small-tables.md)). With few rows one seed says
little: `rankd compare --seeds 5` tells what is chance, and `rankd tune --seeds 3` searches by the mean of
three. Ids of a few rows each are learned by heart, so a fifth of them is hidden in every batch
(`unknown_rates`); where a run still ranks by chance, leave the fields of ids out of its schema and compare.
[ADR 20](adr/0020-sized-by-rows.md) says why.

Figures: AUC counts ties half; log loss is in nats; the calibration error (ECE) is the mean of |observed
rate - mean score| over {NUM_BINS} bins of equal numbers of rows, fewer where a bin would have less than
{FEWEST_IN_BIN} rows, so of two small splits it is not to be compared. A run is read by the version that
wrote it and by later ones, unless [the changelog](../CHANGELOG.md) says that a model's layers have changed.

## Every run

"""
YARDSTICKS = """
## Yardsticks

`rankd compare` and `rankd tune` fit these too, on the same encoded rows: a field with one id is a column of
categories, numbered by how often they occur; a bucket or a number is ordered; a list is its length, its
first value and, where few values are possible, how often each occurs. A `--settings` file gives other
values, under the yardstick's name.
"""
# What `rankd train` has options of its own for.
PLACES = {"examples", "schema", "output", "model", "model_config"}
ENTRY = re.compile(r"^    (\w+): (.*(?:\n {8,}.*)*)", re.MULTILINE)


def meanings(of: type[Any]) -> dict[str, str]:
    """What a dataclass's docstring says of each attribute."""
    _, _, entries = (inspect.getdoc(of) or "").partition("Attributes:")
    return {name: " ".join(words.split()) for name, words in ENTRY.findall(entries)}


def written(default: Any) -> str:
    """As it would be given with `--set`."""
    return default if isinstance(default, str) else json.dumps(default)


def table(of: type[Any], without: set[str] = frozenset()) -> str:  # type: ignore[assignment]
    rows = ["| name | default | meaning |", "|---|---|---|"]
    said = meanings(of)
    for field in dataclasses.fields(of):
        if field.name not in without:
            default = (
                field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            )
            meaning = said[field.name].replace("|", "\\|")
            rows.append(f"| `{field.name}` | `{written(default)}` | {meaning} |")
    return "\n".join(rows) + "\n"


def page() -> str:
    parts = [HEAD, table(TrainSettings, PLACES)]
    parts += [f"\n## {name}\n\n{table(registry.config_type(name))}" for name in registry.names()]
    parts.append(YARDSTICKS)
    parts += [f"\n### {name}\n\n{table(yardsticks.config_type(name))}" for name in yardsticks.names()]
    return "".join(parts)


def test_the_page_says_what_the_code_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m tests.house.test_training_page`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
