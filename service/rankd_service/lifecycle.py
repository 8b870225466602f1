"""What state the process is in: starting, ready, draining; and the loading of models at the start.

Models are loaded beside the event loop, so that the process answers /livez from its first moment.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from rankd_contract.bundle import model_names
from rankd_contract.errors import CorruptBundle
from rankd_service.errors import BundleRefused
from rankd_service.features.change_feed import ChangeFeed
from rankd_service.features.near_cache import NearCaches
from rankd_service.features.store import FeatureStore
from rankd_service.inference.loader import load_current
from rankd_service.inference.registry import LoadedModel, ModelRegistry
from rankd_service.settings import Settings
from rankd_service.telemetry import LoadOutcome, Telemetry

__all__ = ["Lifecycle", "State"]

_PING_S = 0.1
_log = logging.getLogger(__name__)


class State(StrEnum):
    """Where the process is in its life."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether requests should be sent here, and what is missing either way."""

    ready: bool
    state: State
    store: str
    models: dict[str, int]
    missing: list[str] = field(default_factory=list)


class Lifecycle:
    """Starts and stops what the process owns."""

    def __init__(
        self,
        registry: ModelRegistry,
        store: FeatureStore,
        near: NearCaches,
        feed: ChangeFeed | None,
        telemetry: Telemetry,
        settings: Settings,
    ) -> None:
        """Keep the parts; nothing is started yet."""
        self._registry, self._store, self._near, self._feed = registry, store, near, feed
        self._telemetry, self._settings = telemetry, settings
        self.state = State.STARTING
        self._refused: list[str] = []
        self._loading: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to load the models."""
        self._loading = asyncio.create_task(self._load())

    @property
    def draining(self) -> bool:
        """Whether requests that come now are sent elsewhere."""
        return self.state is State.DRAINING

    def drain(self) -> None:
        """Take no more requests; those under way are finished."""
        self.state = State.DRAINING
        _log.info("draining")

    async def stop(self) -> None:
        """Finish loading, then close the store."""
        self.state = State.DRAINING
        if self._loading is not None:
            await asyncio.wait({self._loading})
        if self._feed is not None:
            await self._feed.stop()
        await self._store.close()

    async def readiness(self) -> Readiness:
        """Look at the parts as they are now. A store that is down degrades answers, it does not stop them."""
        cards = self._registry.snapshot.cards()
        store_up = await self._store.ping(_PING_S)
        missing = [f"model {name}: its bundle was refused, the log says why" for name in self._refused]
        if not cards:
            repository = self._settings.models.repository
            none = (
                f"models: none in {repository}; publish one with `rankd export`, then start the service again"
            )
            missing.append("models: none loaded yet" if self.state is State.STARTING else none)
        if not store_up:
            missing.append("store: not answering; answers are degraded")
        return Readiness(
            ready=bool(cards) and self.state is State.SERVING,
            state=self.state,
            store="up" if store_up else "down",
            models={card.name: card.version for card in cards},
            missing=missing,
        )

    async def _load(self) -> None:
        repository = self._settings.models.repository
        models: list[LoadedModel] = []
        for name in await asyncio.to_thread(_names, repository):
            model = await asyncio.to_thread(self._load_one, repository, name)
            if model is None:
                self._refused.append(name.encode(errors="replace").decode())  # a folder may have any bytes
                continue
            models.append(model)
            self._telemetry.serve(model.card, model.assembler.views)
        if self._feed is not None:
            self._feed.start()
        await self._store.ping(_PING_S)  # opens a connection, so that the first request need not
        self._registry.publish(models)
        # What lives as long as the process need not be looked at again: a full collection over it takes
        # tens of milliseconds, in the middle of somebody's request.
        gc.collect()
        gc.freeze()
        if self.state is State.STARTING:
            self.state = State.SERVING
        versions = {model.card.name: model.card.version for model in models}
        if not models:
            where = str(repository.absolute())
            _log.warning("no model to serve; publish one with `rankd export`", extra={"repository": where})
        _log.info("serving", extra={"models": versions, "refused": self._refused})

    def _load_one(self, repository: Path, name: str) -> LoadedModel | None:
        """Load a model; whatever is wrong with it must not keep the others from being served."""
        try:
            model = load_current(repository, name, self._settings, self._near)
        except BundleRefused as error:
            _log.error("bundle refused: %s", error)
            self._telemetry.bundle_loaded(LoadOutcome.REFUSED)
        except Exception:
            _log.exception("bundle of model %s: loading it failed", name)
            self._telemetry.bundle_loaded(LoadOutcome.FAILED)
        else:
            self._telemetry.bundle_loaded(LoadOutcome.LOADED)
            return model
        return None


def _names(repository: Path) -> list[str]:
    try:
        return model_names(repository)
    except CorruptBundle as error:
        _log.error("no model can be found: %s", error)
        return []
