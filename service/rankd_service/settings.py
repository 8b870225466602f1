"""Every knob of the service, typed, with its unit in its name. Nothing else reads the environment.

Values come, strongest first, from the command line, from `RANKD_SECTION__KEY`, from `REDIS_URL` (the
store's address), from the YAML file and from the defaults below. A key nobody knows is an error: a
misspelt limit would be no limit.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from rankd_service.errors import StartupFailed, nearest

__all__ = [
    "MOST_CANDIDATES",
    "FeatureSettings",
    "InferenceSettings",
    "LimitSettings",
    "LogLevel",
    "ModelSettings",
    "ProviderChoice",
    "RedisSettings",
    "ServerSettings",
    "Settings",
    "load_settings",
]

_PREFIX = "RANKD_"


class ProviderChoice(StrEnum):
    """Where graphs run. `prefer_cuda` falls back to the CPU and says so; `require_cuda` refuses to."""

    CPU = "cpu"
    PREFER_CUDA = "prefer_cuda"
    REQUIRE_CUDA = "require_cuda"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LogLevel(StrEnum):
    """The least important record that is written."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class ServerSettings(_Section):
    """Where to listen, and how much to say."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    keep_alive_s: int = Field(default=75, ge=1)
    receive_s: float = Field(default=10, gt=0)  # for a whole request to arrive
    max_connections: int = Field(default=4096, ge=1)  # less where the process may open fewer files
    lame_duck_s: float = Field(default=1, ge=0)  # between SIGTERM and the closing of connections
    drain_s: int = Field(default=25, ge=0)
    log_level: LogLevel = LogLevel.INFO


class RedisSettings(_Section):
    """The feature store. Without an address an embedded one is started, or joined, in `embedded_folder`."""

    url: SecretStr | None = None
    embedded_folder: Path = Path(".rankd/store")
    connections: int = Field(default=16, ge=1, le=1024)
    connect_timeout_ms: float = Field(default=250, gt=0)
    read_timeout_ms: float = Field(default=1000, gt=0)
    max_outstanding: int = Field(default=64, ge=1, le=10_000)


class FeatureSettings(_Section):
    """How stored features are read."""

    namespace: str = Field(default="rankd", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    fetch_cap_ms: float = Field(default=50, gt=0)
    degraded_missing_share: float = Field(default=0.5, ge=0, le=1)
    near_cache_mb: float = Field(default=64, ge=0, le=65_536)  # a view of items, in each process; 0 is none
    near_cache_ttl_s: float = Field(default=60, gt=0)
    near_cache_stale_s: float = Field(default=3600, ge=0)  # how long rows may stand in for a silent store
    clock_skew_s: float = Field(default=300, ge=0)


class ModelSettings(_Section):
    """Which models are served. `fusion` overrides the weights of a model's tasks in the ranking score."""

    repository: Path = Path("models")
    fusion: dict[str, dict[str, float]] = Field(default_factory=dict)


# A parser that knows it stops here need not look at a list a hundred times too long.
MOST_CANDIDATES = 10_000


class LimitSettings(_Section):
    """What a request may ask for."""

    max_candidates: int = Field(default=2000, ge=1, le=MOST_CANDIDATES)
    max_body_bytes: int = Field(default=1 << 20, ge=1024)
    max_id_bytes: int = Field(default=128, ge=1, le=128)
    default_deadline_ms: float = Field(default=250, gt=0)
    max_deadline_ms: float = Field(default=10_000, gt=0)
    reserve_ms: float = Field(default=5, ge=0)  # kept back from the read of features for what follows
    answer_ms: float = Field(default=1, ge=0)  # kept back from inference for writing the answer
    max_under_way: int = Field(default=64, ge=1, le=10_000)  # the adaptive limit stays below
    max_waiting: int = Field(default=256, ge=0, le=100_000)  # of each priority

    @model_validator(mode="after")
    def _fit_together(self) -> LimitSettings:
        if not self.reserve_ms < self.default_deadline_ms <= self.max_deadline_ms:
            raise ValueError("expected reserve_ms < default_deadline_ms <= max_deadline_ms")
        return self


class InferenceSettings(_Section):
    """How graphs are run."""

    threads: int = Field(default=1, ge=1, le=256)
    provider: ProviderChoice = ProviderChoice.CPU


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=_PREFIX, env_nested_delimiter="__"
    )

    server: ServerSettings = ServerSettings()
    redis: RedisSettings = RedisSettings()
    features: FeatureSettings = FeatureSettings()
    models: ModelSettings = ModelSettings()
    limits: LimitSettings = LimitSettings()
    inference: InferenceSettings = InferenceSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing behind the caller's back: `load_settings` merges the sources."""
        return (init_settings,)


def load_settings(
    config: Path | None = None, *, defaults: dict[str, Any] | None = None, **overrides: dict[str, Any]
) -> Settings:
    """Read the settings; `overrides` (section=dict, from the command line) beat everything.

    `defaults` stand in for those of this file, where the caller knows better. Raises StartupFailed with one
    line a mistake.
    """
    shared = os.environ.get("REDIS_URL")
    sources = (
        defaults or {},
        _read(config) if config else {},
        {"redis": {"url": shared}} if shared else {},
        EnvSettingsSource(Settings)(),
        overrides,
    )
    mistakes = _unknown_sections()
    try:
        settings = Settings(**_merged(sources))
    except ValidationError as error:
        mistakes += [_mistake(dict(e)) for e in error.errors(include_url=False, include_input=False)]
    if mistakes:
        raise StartupFailed("\n".join(mistakes))
    return settings


def _merged(sources: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Merge section by section; a section that is no mapping is left for validation to report."""
    tree: dict[str, Any] = {}
    for source in sources:
        for section, values in source.items():
            below = tree.get(section)
            tree[section] = (
                {**below, **values} if isinstance(below, dict) and isinstance(values, dict) else values
            )
    return tree


def _read(config: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise StartupFailed(f"{config}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise StartupFailed(f"{config}: not valid YAML: {error}".replace("\n", " ")) from error
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise StartupFailed(f"{config}: expected sections such as `server:` or `redis:`, got something else")
    return tree


def _unknown_sections() -> list[str]:
    """Find `RANKD_SEVER__PORT`: pydantic-settings looks only for names it knows."""
    named = [n for n in os.environ if n.startswith(_PREFIX) and "__" in n]
    sections = {n: n.removeprefix(_PREFIX).split("__")[0].lower() for n in named}
    known = list(Settings.model_fields)
    return [f"{n}: unknown section; {nearest(s, known)}" for n, s in sections.items() if s not in known]


def _mistake(error: dict[str, Any]) -> str:
    path = [str(part) for part in error["loc"]]
    where = ".".join(path) or "settings"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key; {nearest(path[-1], _keys(path[:-1]))}"
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _keys(path: list[str]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in path:
        kind = model.model_fields[part].annotation
        assert isinstance(kind, type)  # every section is a model
        model = kind
    return list(model.model_fields)
