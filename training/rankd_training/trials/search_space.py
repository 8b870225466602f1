"""Where to look for settings: a YAML file of dimensions, checked against the model before any training.

    learning_rate: {log: [0.0001, 0.01]}     # float, evenly over magnitudes
    model.dropout: {float: [0, 0.5]}
    model.heads: {int: [1, 8]}               # ends included; log_int is evenly over magnitudes
    batch_size: {choice: [512, 2048]}
    model.hidden: {choice: [[64, 32], [256]]}
    patience: 3                              # fixed

Keys are those of `rankd train --set`. Errors name file, line, key and what was expected.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import yaml

from rankd_training.config import read_config
from rankd_training.errors import SettingError
from rankd_training.models import registry
from rankd_training.settings import TrainSettings
from rankd_training.settings_file import PREFIX, nested, yaml_of
from rankd_training.yardsticks import registry as yardsticks

__all__ = ["Dimension", "SearchSpace", "Suggester", "read_space"]

KINDS = ("float", "log", "int", "log_int", "choice")
NOT_SEARCHED = ("examples", "schema", "output", "model", "model_config", "seed", "group_column")
ENDS = 2


class Suggester(Protocol):
    """Proposes values; an Optuna trial is one."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Between the ends."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Ends included."""

    def suggest_categorical(self, name: str, choices: list[str]) -> str:
        """One of these."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One setting's values: two ends, or choices."""

    name: str
    kind: str
    values: tuple[Any, ...]

    def suggest(self, by: Suggester) -> Any:
        """Take a value."""
        if self.kind == "choice":
            # As text, since the values may be lists.
            return json.loads(by.suggest_categorical(self.name, [json.dumps(v) for v in self.values]))
        low, high = self.values
        log = self.kind.startswith("log")
        if self.kind.endswith("int"):
            return by.suggest_int(self.name, low, high, log=log)
        return by.suggest_float(self.name, low, high, log=log)

    def encode(self, value: Any) -> Any:
        """Return a value as `suggest` asks for it; None where it is not in this dimension."""
        if self.kind == "choice":
            text = json.dumps(list(value) if isinstance(value, tuple) else value)
            return text if text in [json.dumps(v) for v in self.values] else None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return value if number and self.values[0] <= value <= self.values[1] else None


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """Dimensions to search, and settings that every trial has."""

    dimensions: tuple[Dimension, ...]
    fixed: Mapping[str, Any]

    def suggest(self, by: Suggester) -> dict[str, Any]:
        """Take a value of each dimension -> settings, `model.` keys as they are."""
        return {**self.fixed, **{one.name: one.suggest(by) for one in self.dimensions}}

    def canonical(self) -> str:
        """One spelling, for keys."""
        tree = {one.name: [one.kind, *one.values] for one in self.dimensions}
        return json.dumps([tree, dict(self.fixed)], sort_keys=True)


def read_space(path: Path, model: str) -> SearchSpace:
    """Read a file for a model or a yardstick.

    Raises:
        SettingError: the file is no such mapping, a key is unknown, or values are wrong.
    """
    entries = _entries(path)
    dimensions, fixed = [], {}
    for name, (line, value) in entries.items():
        place = f"{path}, line {line}, {name}"
        if isinstance(value, dict):
            dimensions.append(_dimension(place, name, value))
        else:
            fixed[name] = value
    if not dimensions:
        raise SettingError(f"{path}: nothing to search; expected entries such as learning_rate: {_EXAMPLE}")
    space = SearchSpace(tuple(dimensions), fixed)
    _check_keys(path, space, model, {name: line for name, (line, _) in entries.items()})
    return space


_EXAMPLE = "{log: [0.0001, 0.01]}"


def _entries(path: Path) -> dict[str, tuple[int, Any]]:
    """Keys with their lines and values."""
    tree, text = yaml_of(path)
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode) or not tree:
        raise SettingError(f"{path}: expected a mapping such as learning_rate: {_EXAMPLE}")
    lines = {key.value: key.start_mark.line + 1 for key, _ in node.value}
    return {str(name): (lines.get(str(name), 1), value) for name, value in tree.items()}


def _dimension(place: str, name: str, given: Mapping[str, Any]) -> Dimension:
    if len(given) != 1:
        raise SettingError(f"{place}: expected one of {', '.join(KINDS)}, got {', '.join(map(str, given))}")
    ((kind, values),) = given.items()
    if kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(KINDS)}"
        raise SettingError(f"{place}: no kind is called {kind!r}; {hint}")
    if not isinstance(values, list):
        raise SettingError(f"{place}: expected a list after {kind}, got {values!r}")
    if kind == "choice":
        if not values:
            raise SettingError(f"{place}: expected at least one choice")
        return Dimension(name, kind, tuple(values))
    numbers: tuple[Any, ...] = tuple(values)
    wanted = int if kind.endswith("int") else int | float
    if len(numbers) != ENDS or not all(isinstance(v, wanted) and not isinstance(v, bool) for v in numbers):
        unit = "whole numbers" if kind.endswith("int") else "numbers"
        raise SettingError(f"{place}: expected two {unit}, lowest and highest, got {values!r}")
    if not numbers[0] < numbers[1]:
        raise SettingError(f"{place}: expected the lowest first, got {values!r}")
    if kind.startswith("log") and not numbers[0] > 0:
        raise SettingError(f"{place}: expected ends above 0, got {values!r}")
    # Floats even where whole numbers are written, so that a setting of whole numbers refuses them.
    return Dimension(name, kind, numbers if kind.endswith("int") else tuple(map(float, numbers)))


def _check_keys(path: Path, space: SearchSpace, model: str, lines: Mapping[str, int]) -> None:
    """Try every end and every choice on the settings' own types."""
    if model in registry.names():
        known = [f.name for f in fields(TrainSettings) if f.name not in NOT_SEARCHED]
        known += registry.setting_names(model)
    else:
        known = [f.name for f in fields(yardsticks.config_type(model))]
    tried = [(one.name, value) for one in space.dimensions for value in one.values]
    # In the file's order, so that the first wrong line is the one that is named.
    for name, value in sorted([*tried, *space.fixed.items()], key=lambda pair: lines[pair[0]]):
        place = f"{path}, line {lines[name]}"
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
            raise SettingError(f"{place}: {model} has no setting {name!r} to search; {hint}")
        try:
            _check_value(model, name, value)
        except SettingError as error:
            raise SettingError(f"{place}: {error}") from error


def _check_value(model: str, name: str, value: Any) -> None:
    tree = nested({name: value})
    if model not in registry.names():
        read_config(yardsticks.config_type(model), tree)
    elif name.startswith(PREFIX):
        read_config(registry.config_type(model), tree["model_config"])
    else:
        nowhere = {"examples": Path(), "schema": Path(), "output": Path()}
        read_config(TrainSettings, {**nowhere, **tree})
