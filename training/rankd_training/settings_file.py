"""Settings by model in a YAML file, as `rankd tune` writes and `rankd train` and `rankd compare` read them.

    mlcc:
      learning_rate: 0.001
      model.heads: 8
    gbdt:
      num_leaves: 31

Keys are those of `rankd train --set`: `model.` leads to the model's own settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rankd_contract.errors import YamlError
from rankd_contract.strict_yaml import read_text, read_yaml
from rankd_training.errors import SettingError

__all__ = ["PREFIX", "flat", "nested", "read_settings_file", "write_settings_file", "yaml_of"]

PREFIX = "model."
MODEL_CONFIG = "model_config"


def read_settings_file(path: Path) -> dict[str, dict[str, Any]]:
    """Read a file -> by model, keyword arguments of `TrainSettings` (or settings of a yardstick).

    Raises:
        SettingError: the file cannot be read or is no mapping of models to mappings; names file and key.
    """
    tree = yaml_of(path)[0]
    if not isinstance(tree, dict) or not tree:
        raise SettingError(
            f"{path}: expected a mapping of model names to settings, such as mlcc: {{epochs: 5}}"
        )
    for model, settings in tree.items():
        if not isinstance(settings, dict):
            raise SettingError(f"{path}, {model}: expected a mapping of settings, got {settings!r}")
    return {str(model): nested(settings) for model, settings in tree.items()}


def yaml_of(path: Path) -> tuple[Any, str]:
    """Read a YAML file strictly -> its values and its text. Raises SettingError naming file and line."""
    try:
        text = read_text(path)
    except YamlError as error:
        raise SettingError(str(error)) from error
    try:
        return read_yaml(text), text
    except YamlError as error:
        raise SettingError(f"{path}: {error}") from error


def write_settings_file(path: Path, settings: Mapping[str, Mapping[str, Any]], comment: str) -> None:
    """Write what `read_settings_file` reads, `comment` above it."""
    tree = {model: flat(chosen) for model, chosen in settings.items()}
    lines = "".join(f"# {line}\n" for line in comment.splitlines())
    path.write_text(lines + yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Turn `model.key` into entries of `model_config`."""
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        name = str(key)
        if name.startswith(PREFIX):
            tree.setdefault(MODEL_CONFIG, {})[name.removeprefix(PREFIX)] = value
        elif name == MODEL_CONFIG and isinstance(value, Mapping):
            tree.setdefault(MODEL_CONFIG, {}).update(value)
        else:
            tree[name] = value
    return tree


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Turn entries of `model_config` into `model.key`."""
    tree = {key: value for key, value in settings.items() if key != MODEL_CONFIG}
    return tree | {PREFIX + key: value for key, value in settings.get(MODEL_CONFIG, {}).items()}
