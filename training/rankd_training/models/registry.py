"""Models by the name that the command line, checkpoints and bundles use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rankd_contract.schema import FeatureSchema
from rankd_training.config import read_config
from rankd_training.errors import SettingError, UnknownModel
from rankd_training.models.armnet import ARMNet, ARMNetConfig
from rankd_training.models.dcnv2 import DCNv2, DCNv2Config
from rankd_training.models.infnet import INFNet
from rankd_training.models.infnet_config import INFNetConfig
from rankd_training.models.logistic import LogisticConfig, LogisticRegression
from rankd_training.models.mlcc import MLCC, MLCCConfig

__all__ = ["RankingConfig", "RankingModel", "build", "config_type", "name_of", "names"]

RankingConfig = MLCCConfig | INFNetConfig | ARMNetConfig | DCNv2Config | LogisticConfig
RankingModel = MLCC | INFNet | ARMNet | DCNv2 | LogisticRegression

_CONFIGS: Mapping[str, type[RankingConfig]] = {
    "mlcc": MLCCConfig,
    "infnet": INFNetConfig,
    "armnet": ARMNetConfig,
    "dcnv2": DCNv2Config,
    "lr": LogisticConfig,
}


def names() -> list[str]:
    """Return the names of all models."""
    return list(_CONFIGS)


def config_type(name: str) -> type[RankingConfig]:
    """Return the config dataclass of a model. Raises UnknownModel."""
    try:
        return _CONFIGS[name]
    except KeyError:
        raise UnknownModel(name, names()) from None


def build(name: str, schema: FeatureSchema, config: Mapping[str, Any] | RankingConfig) -> RankingModel:
    """Build a model with fresh weights drawn from torch's default generator.

    Args:
        name: one of `names()`.
        schema: decides inputs, slots and tasks.
        config: the model's config, or its settings as a mapping.

    Raises:
        UnknownModel: no model has that name.
        SettingError: the config is another model's, or a setting is unknown or wrong.
    """
    expected = config_type(name)
    if isinstance(config, Mapping):
        config = read_config(expected, config)
    if not isinstance(config, expected):
        raise SettingError(f"model '{name}' takes {expected.__name__}, got {type(config).__name__}")
    match config:
        case MLCCConfig():
            return MLCC(schema, config)
        case INFNetConfig():
            return INFNet(schema, config)
        case DCNv2Config():
            return DCNv2(schema, config)
        case ARMNetConfig():
            return ARMNet(schema, config)
        case LogisticConfig():
            return LogisticRegression(schema, config)


def name_of(model: RankingModel) -> str:
    """Return the name that `build` makes this model under."""
    return next(name for name, config in _CONFIGS.items() if isinstance(model.config, config))
