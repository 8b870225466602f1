"""Yardsticks by name. A package that is not installed takes its yardstick out of the list."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from rankd_training.config import read_config
from rankd_training.errors import UnknownYardstick
from rankd_training.examples.examples import Examples
from rankd_training.yardsticks.yardstick import Yardstick

__all__ = ["config_type", "fit", "names"]


def names() -> list[str]:
    """Return the names of the yardsticks that can be fitted here."""
    return ["popularity", "gbdt"] + ["lightgbm"] * (find_spec("lightgbm") is not None)


def config_type(name: str) -> type[Any]:
    """Return the settings of a yardstick. Raises UnknownYardstick."""
    if name not in names():
        raise UnknownYardstick(name, names())
    # Each brings a package that costs a second to import.
    if name == "popularity":
        from rankd_training.yardsticks.popularity import PopularityConfig  # noqa: PLC0415

        return PopularityConfig
    if name == "gbdt":
        from rankd_training.yardsticks.gbdt import GBDTConfig  # noqa: PLC0415

        return GBDTConfig
    from rankd_training.yardsticks.lightgbm import LightGBMConfig  # noqa: PLC0415

    return LightGBMConfig


def fit(name: str, examples: Examples, *, seed: int, settings: Mapping[str, Any]) -> Yardstick:
    """Fit a yardstick on the training rows; trees stop growing by the validation rows.

    Args:
        name: one of `names()`.
        examples: encoded and labelled rows.
        seed: the same gives the same; popularity has no use for it.
        settings: those that differ from the yardstick's defaults.

    Raises:
        UnknownYardstick: no yardstick has that name, or its package is not installed.
        SettingError: a setting is unknown or of the wrong type.
    """
    config: Any = read_config(config_type(name), settings)
    if name == "popularity":
        from rankd_training.yardsticks.popularity import fit_popularity  # noqa: PLC0415

        return fit_popularity(examples, config)
    if name == "gbdt":
        from rankd_training.yardsticks.gbdt import fit_gbdt  # noqa: PLC0415

        return fit_gbdt(examples, config, seed=seed)
    from rankd_training.yardsticks.lightgbm import fit_lightgbm  # noqa: PLC0415

    return fit_lightgbm(examples, config, seed=seed)
