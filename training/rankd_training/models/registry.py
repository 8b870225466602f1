"""Models by the name that the command line, checkpoints and bundles use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from rankd_contract.schema import FeatureSchema
from rankd_training.config import read_config
from rankd_training.errors import SettingError, UnknownModel
from rankd_training.models.armnet import ARMNet, ARMNetConfig
from rankd_training.models.dcnv2 import DCNv2, DCNv2Config
from rankd_training.models.deepfm import DeepFM, DeepFMConfig
from rankd_training.models.dlrm import DLRM, DLRMConfig
from rankd_training.models.dnn import DNN, DNNConfig
from rankd_training.models.fm import FactorizationMachine, FMConfig
from rankd_training.models.infnet import INFNet
from rankd_training.models.infnet_config import INFNetConfig
from rankd_training.models.logistic import LogisticConfig, LogisticRegression
from rankd_training.models.mlcc import MLCC, MLCCConfig
from rankd_training.models.mmoe import MMoE, MMoEConfig
from rankd_training.models.optinter import OptInter, OptInterConfig
from rankd_training.models.ple import PLE, PLEConfig
from rankd_training.models.wukong import Wukong, WukongConfig
from rankd_training.settings_file import PREFIX

__all__ = ["RankingConfig", "RankingModel", "build", "config_type", "name_of", "names", "setting_names"]

RankingConfig = (
    MLCCConfig
    | INFNetConfig
    | ARMNetConfig
    | DCNv2Config
    | WukongConfig
    | DLRMConfig
    | DeepFMConfig
    | MMoEConfig
    | PLEConfig
    | OptInterConfig
    | DNNConfig
    | FMConfig
    | LogisticConfig
)
RankingModel = (
    MLCC
    | INFNet
    | ARMNet
    | DCNv2
    | Wukong
    | DLRM
    | DeepFM
    | MMoE
    | PLE
    | OptInter
    | DNN
    | FactorizationMachine
    | LogisticRegression
)


class _Entry(NamedTuple):
    """A config and what builds a model of it; the builder takes that config only."""

    config: type[RankingConfig]
    build: Callable[[FeatureSchema, Any], RankingModel]


_MODELS: Mapping[str, _Entry] = {
    "mlcc": _Entry(MLCCConfig, MLCC),
    "infnet": _Entry(INFNetConfig, INFNet),
    "armnet": _Entry(ARMNetConfig, ARMNet),
    "dcnv2": _Entry(DCNv2Config, DCNv2),
    "wukong": _Entry(WukongConfig, Wukong),
    "dlrm": _Entry(DLRMConfig, DLRM),
    "deepfm": _Entry(DeepFMConfig, DeepFM),
    "mmoe": _Entry(MMoEConfig, MMoE),
    "ple": _Entry(PLEConfig, PLE),
    "optinter": _Entry(OptInterConfig, OptInter),
    "dnn": _Entry(DNNConfig, DNN),
    "fm": _Entry(FMConfig, FactorizationMachine),
    "lr": _Entry(LogisticConfig, LogisticRegression),
}


def names() -> list[str]:
    """Return the names of all models."""
    return list(_MODELS)


def config_type(name: str) -> type[RankingConfig]:
    """Return the config dataclass of a model. Raises UnknownModel."""
    return _entry(name).config


def setting_names(name: str) -> list[str]:
    """Return a model's settings as people write them, such as `model.heads`. Raises UnknownModel."""
    return [PREFIX + field.name for field in fields(config_type(name))]


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
    entry = _entry(name)
    if isinstance(config, Mapping):
        config = read_config(entry.config, config)
    if not isinstance(config, entry.config):
        raise SettingError(f"model '{name}' takes {entry.config.__name__}, got {type(config).__name__}")
    return entry.build(schema, config)


def name_of(model: RankingModel) -> str:
    """Return the name that `build` makes this model under."""
    return next(name for name, entry in _MODELS.items() if isinstance(model.config, entry.config))


def _entry(name: str) -> _Entry:
    try:
        return _MODELS[name]
    except KeyError:
        raise UnknownModel(name, names()) from None
