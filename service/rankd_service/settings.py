"""Every knob of the service, typed, with its unit in its name. `settings_sources.py` reads them."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from rankd_service.provider import ProviderChoice

__all__ = [
    "MOST_CANDIDATES",
    "PREFIX",
    "BatchingSettings",
    "FeatureSettings",
    "InferenceSettings",
    "LimitSettings",
    "LogLevel",
    "ModelSettings",
    "ProviderChoice",
    "RedisSettings",
    "ServerSettings",
    "Settings",
]

PREFIX = "RANKD_"


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
_AN_HOUR_S = 3600
_AN_HOUR_MS = 3_600_000


class ServerSettings(_Section):
    """Where to listen, and how much to say."""

    host: _Host = Field(default="127.0.0.1", description="Name or address to listen on; `::` is IPv6.")
    port: int = Field(default=8080, ge=0, le=65535, description="0 takes any free one; the log says which.")
    workers: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Processes that serve; left out, one for each core that affinity and quota allow.",
    )
    hang_s: float = Field(
        default=5,
        ge=1,
        le=_A_DAY_S,
        description="When a worker whose event loop stands still is replaced, where there are several.",
    )
    keep_alive_s: int = Field(
        default=75, ge=1, le=_A_DAY_S, description="How long a connection with nothing under way stays open."
    )
    receive_s: float = Field(
        default=10,
        gt=0,
        le=_A_DAY_S,
        description="Time for a whole request to arrive, or an answer to be read.",
    )
    max_connections: int = Field(
        default=4096, ge=1, description="Open connections; fewer where the process may open fewer files."
    )
    lame_duck_s: float = Field(
        default=1, ge=0, le=_A_DAY_S, description="Between SIGTERM and the closing of connections."
    )
    drain_s: int = Field(
        default=25, ge=0, le=_A_DAY_S, description="After that, how long requests under way are waited for."
    )
    memory_mb: float | None = Field(
        default=None,
        gt=0,
        description="Memory of each process less mapped weights; left out, the control group's limit.",
    )
    log_level: LogLevel = Field(
        default=LogLevel.INFO, description="The least important record that is written."
    )


class RedisSettings(_Section):
    """The feature store. Without an address an embedded one is started, or joined, in `embedded_folder`."""

    url: SecretStr | None = Field(
        default=None,
        description="[Address](features.md#addresses) of the store, `redis://:password@host/0`; never shown.",
    )
    embedded_folder: _Folder = Field(
        default=Path(".rankd/store"), description="Where the embedded store lives, if there is no `url`."
    )
    connections: int = Field(default=16, ge=1, le=1024, description="Connections to each server, at most.")
    connect_timeout_ms: float = Field(
        default=250, gt=0, le=_AN_HOUR_MS, description="How long opening a connection may take."
    )
    read_timeout_ms: float = Field(
        default=1000,
        gt=0,
        le=_AN_HOUR_MS,
        description="When a connection that does not answer is closed; requests wait `fetch_cap_ms` at most.",
    )
    max_outstanding: int = Field(
        default=64, ge=1, le=10_000, description="Reads without an answer, of each server; beyond, none asks."
    )


class FeatureSettings(_Section):
    """How stored features are read."""

    namespace: str = Field(
        default="rankd",
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="What the keys of all rows begin with.",
    )
    fetch_cap_ms: float = Field(
        default=50, gt=0, le=_AN_HOUR_MS, description="How long a request waits for the store, at most."
    )
    degraded_missing_share: float = Field(
        default=0.5, ge=0, le=1, description="Above this share of default rows an answer counts as degraded."
    )
    near_cache_mb: float = Field(
        default=64, ge=0, le=65_536, description="Item rows kept in each process, a view; 0 keeps none."
    )
    near_cache_ttl_s: float = Field(default=60, gt=0, description="How long a kept row is fresh, at most.")
    near_cache_stale_s: float = Field(
        default=3600, ge=0, description="How long after that it may stand in for a silent store."
    )
    clock_skew_s: float = Field(
        default=300, ge=0, description="How far in the future an event time may be and still be believed."
    )


class ModelSettings(_Section):
    """Which models are served."""

    repository: _Folder = Field(default=Path("models"), description="Folder of published bundles.")
    fusion: dict[str, dict[str, float]] = Field(
        default_factory=dict,
        description="Weights of a model's tasks in the ranking score, in place of its bundle's.",
    )
    cheaper: dict[str, str] = Field(
        default_factory=dict,
        description="Which model scores in place of another that is too slow for what time is left.",
    )

    @field_validator("cheaper")
    @classmethod
    def _another(cls, cheaper: dict[str, str]) -> dict[str, str]:
        for name, other in cheaper.items():
            if name == other:
                raise ValueError(f"{name} is no cheaper than itself")
        return cheaper

    refresh_s: float = Field(
        default=2,
        ge=0,
        le=3600,
        description="How often pointers are read anew, so that a published version is served; 0 is never.",
    )
    keep_warm: int = Field(
        default=1,
        ge=0,
        le=16,
        description="Other versions of a model that are kept loaded, to be asked for or gone back to.",
    )
    trusted_keys: tuple[_Folder, ...] = Field(
        default=(),
        description="Files of Ed25519 public keys in PEM; with any, only bundles signed by one are served.",
    )
    trial_s: float = Field(
        default=60,
        ge=0,
        le=_AN_HOUR_S,
        description="Processor time for trying a bundle out in a process of its own, before it is loaded; 0 "
        "tries none.",
    )
    trial_mb: int = Field(
        default=2048,
        ge=64,
        le=1 << 20,
        description="Memory of that process, besides three times the size of the bundle's files.",
    )


# A parser that knows it stops here need not look at a list a hundred times too long.
MOST_CANDIDATES = 10_000


class LimitSettings(_Section):
    """What a request may ask for."""

    max_candidates: int = Field(
        default=2000, ge=1, le=MOST_CANDIDATES, description="Candidates of a request."
    )
    max_body_bytes: int = Field(default=1 << 20, ge=1024, le=1 << 30, description="Length of a body.")
    max_id_bytes: int = Field(default=128, ge=1, le=128, description="Length of an id in UTF-8.")
    default_deadline_ms: float = Field(
        default=250, gt=0, le=_AN_HOUR_MS, description="Deadline of a request that names none."
    )
    max_deadline_ms: float = Field(
        default=10_000, gt=0, le=_AN_HOUR_MS, description="Longer deadlines are cut to this one."
    )
    reserve_ms: float = Field(
        default=5, ge=0, description="Kept back from the read of features for what follows it."
    )
    answer_ms: float = Field(default=1, ge=0, description="Kept back from inference for writing the answer.")
    max_under_way: int = Field(
        default=64, ge=1, le=10_000, description="Requests under way; the adaptive limit stays below."
    )
    max_waiting: int = Field(
        default=256, ge=0, le=100_000, description="Requests that wait to be let in, of each priority."
    )

    @model_validator(mode="after")
    def _fit_together(self) -> LimitSettings:
        if not self.reserve_ms < self.default_deadline_ms <= self.max_deadline_ms:
            raise ValueError("expected reserve_ms < default_deadline_ms <= max_deadline_ms")
        return self


class InferenceSettings(_Section):
    """How graphs are run."""

    threads: int = Field(default=1, ge=1, le=256, description="Threads that run one graph.")
    provider: ProviderChoice = Field(
        default=ProviderChoice.CPU,
        description="`prefer_cuda` falls back to the CPU and says so in the log, `/readyz` and "
        "`rankd_model_fallback`; `require_cuda` ends the start where there is no CUDA.",
    )
    item_parts_mb: float = Field(
        default=64,
        ge=0,
        le=65_536,
        description="What was computed of items alone, kept in each process, a model; 0 keeps none.",
    )


class BatchingSettings(_Section):
    """Which requests share one run of a graph. Nobody waits for company; see docs/results/batching.md."""

    max_candidates: int = Field(
        default=50,
        ge=0,
        le=MOST_CANDIDATES,
        description="Requests with more candidates are scored alone; 0 scores every request alone.",
    )
    max_rows: int = Field(
        default=200, ge=1, le=MOST_CANDIDATES, description="Candidates that share one run, at most."
    )
    piece_ms: float = Field(
        default=0.5,
        gt=0,
        le=_AN_HOUR_MS,
        description="How long a run for a batch request may take while there are live ones; it has several.",
    )


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=PREFIX, env_nested_delimiter="__"
    )

    server: ServerSettings = ServerSettings()
    redis: RedisSettings = RedisSettings()
    features: FeatureSettings = FeatureSettings()
    models: ModelSettings = ModelSettings()
    limits: LimitSettings = LimitSettings()
    inference: InferenceSettings = InferenceSettings()
    batching: BatchingSettings = BatchingSettings()

    def revealed(self) -> dict[str, Any]:
        """Return the tree as plain values, secrets in clear: for a process of ours, never for a log."""
        tree: dict[str, Any] = json.loads(json.dumps(self.model_dump(), default=_plain))
        return tree

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing behind the caller's back: `settings_sources.load_settings` merges the sources."""
        return (init_settings,)


def _plain(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
