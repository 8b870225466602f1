"""Every knob of the service, typed, with its unit in its name. Nothing else reads the environment.

Values come, strongest first, from the command line, from `RANKD_SECTION__KEY`, from `REDIS_URL` (the
store's address), from the YAML file and from the defaults below. A key nobody knows is an error: a
misspelt limit would be no limit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from rankd_contract.errors import YamlError
from rankd_contract.strict_yaml import read_text, read_yaml
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


def _host(value: str) -> str:
    if not re.fullmatch(r"[\w.:%-]{1,253}", value):
        raise ValueError("expected a name or an address of this machine, such as 127.0.0.1 or ::")
    value.encode("idna")  # as the socket will; raises a ValueError
    return value


def _path(value: Path) -> Path:
    if "\0" in str(value):
        raise ValueError("expected a path, got one with a NUL")
    return value


_Host = Annotated[str, AfterValidator(_host)]
_Folder = Annotated[Path, AfterValidator(_path)]
_A_DAY_S = 86_400
_AN_HOUR_MS = 3_600_000


class ServerSettings(_Section):
    """Where to listen, and how much to say."""

    host: _Host = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    keep_alive_s: int = Field(default=75, ge=1, le=_A_DAY_S)
    receive_s: float = Field(default=10, gt=0, le=_A_DAY_S)  # for a whole request to arrive
    max_connections: int = Field(default=4096, ge=1)  # less where the process may open fewer files
    lame_duck_s: float = Field(default=1, ge=0, le=_A_DAY_S)  # between SIGTERM and the closing of connections
    drain_s: int = Field(default=25, ge=0, le=_A_DAY_S)
    log_level: LogLevel = LogLevel.INFO


class RedisSettings(_Section):
    """The feature store. Without an address an embedded one is started, or joined, in `embedded_folder`."""

    url: SecretStr | None = None
    embedded_folder: _Folder = Path(".rankd/store")
    connections: int = Field(default=16, ge=1, le=1024)
    connect_timeout_ms: float = Field(default=250, gt=0, le=_AN_HOUR_MS)
    read_timeout_ms: float = Field(default=1000, gt=0, le=_AN_HOUR_MS)
    max_outstanding: int = Field(default=64, ge=1, le=10_000)


class FeatureSettings(_Section):
    """How stored features are read."""

    namespace: str = Field(default="rankd", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    fetch_cap_ms: float = Field(default=50, gt=0, le=_AN_HOUR_MS)
    degraded_missing_share: float = Field(default=0.5, ge=0, le=1)
    near_cache_mb: float = Field(default=64, ge=0, le=65_536)  # a view of items, in each process; 0 is none
    near_cache_ttl_s: float = Field(default=60, gt=0)
    near_cache_stale_s: float = Field(default=3600, ge=0)  # how long rows may stand in for a silent store
    clock_skew_s: float = Field(default=300, ge=0)


class ModelSettings(_Section):
    """Which models are served. `fusion` overrides the weights of a model's tasks in the ranking score."""

    repository: _Folder = Path("models")
    fusion: dict[str, dict[str, float]] = Field(default_factory=dict)


# A parser that knows it stops here need not look at a list a hundred times too long.
MOST_CANDIDATES = 10_000


class LimitSettings(_Section):
    """What a request may ask for."""

    max_candidates: int = Field(default=2000, ge=1, le=MOST_CANDIDATES)
    max_body_bytes: int = Field(default=1 << 20, ge=1024, le=1 << 30)
    max_id_bytes: int = Field(default=128, ge=1, le=128)
    default_deadline_ms: float = Field(default=250, gt=0, le=_AN_HOUR_MS)
    max_deadline_ms: float = Field(default=10_000, gt=0, le=_AN_HOUR_MS)
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
        _environment(),
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
        text = read_text(config)
    except YamlError as error:
        raise StartupFailed(str(error)) from error
    try:
        tree = read_yaml(text)
    except YamlError as error:
        raise StartupFailed(f"{config}: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise StartupFailed(f"{config}: expected sections such as `server:` or `redis:`, got something else")
    return tree


def _environment() -> dict[str, Any]:
    try:
        return EnvSettingsSource(Settings)()
    except (SettingsError, RecursionError) as error:
        field = re.search(r'field "(\w+)"', str(error))  # a value nested too deeply names none
        start = f"{_PREFIX}{field[1] if field else ''}".upper()
        named = ", ".join(sorted(n for n in os.environ if n.upper().startswith(start)))
        raise StartupFailed(
            f"{named}: expected JSON for a whole section; one key is {_PREFIX}SECTION__KEY, "
            f"such as {_PREFIX}SERVER__PORT=8080"
        ) from error


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
    words = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {words[0].lower()}{words[1:]}"


def _keys(path: list[str]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in path:
        kind = model.model_fields[part].annotation
        assert isinstance(kind, type)  # every section is a model
        model = kind
    return list(model.model_fields)
