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

from rankd_training.errors import SettingError

__all__ = ["PREFIX", "flat", "nested", "read_settings_file", "write_settings_file"]

PREFIX = "model."
MODEL_CONFIG = "model_config"


def read_settings_file(path: Path) -> dict[str, dict[str, Any]]:
    """Read a file -> by model, keyword arguments of `TrainSettings` (or settings of a yardstick).

    Raises:
        SettingError: the file cannot be read or is no mapping of models to mappings; names file and key.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"{path}: cannot be read: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise SettingError(f"{path}: is not YAML: {error}") from error
    if not isinstance(tree, dict) or not tree:
        raise SettingError(
            f"{path}: expected a mapping of model names to settings, such as mlcc: {{epochs: 5}}"
        )
    for model, settings in tree.items():
        if not isinstance(settings, dict):
            raise SettingError(f"{path}, {model}: expected a mapping of settings, got {settings!r}")
    return {str(model): nested(settings) for model, settings in tree.items()}


def write_settings_file(path: Path, settings: Mapping[str, Mapping[str, Any]], comment: str) -> None:
    """Write what `read_settings_file` reads, `comment` above it."""
    tree = {model: flat(chosen) for model, chosen in settings.items()}
    lines = "".join(f"# {line}\n" for line in comment.splitlines())
    path.write_text(lines + yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Turn `model.key` into entries of `model_config`; numbers such as 1e-3, text to YAML, become numbers."""
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        name, number = str(key), as_number(value)
        if name.startswith(PREFIX):
            tree.setdefault(MODEL_CONFIG, {})[name.removeprefix(PREFIX)] = number
        elif name == MODEL_CONFIG and isinstance(value, Mapping):
            tree.setdefault(MODEL_CONFIG, {}).update(value)
        else:
            tree[name] = number
    return tree


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Turn entries of `model_config` into `model.key`."""
    tree = {key: value for key, value in settings.items() if key != MODEL_CONFIG}
    return tree | {PREFIX + key: value for key, value in settings.get(MODEL_CONFIG, {}).items()}


def as_number(value: Any) -> Any:
    """YAML 1.1 takes 1e-3 for text, since it has no point; people mean a number."""
    if isinstance(value, str) and value[:1] in set("-.0123456789"):
        try:
            return float(value)
        except ValueError:
            return value
    return value
