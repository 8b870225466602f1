"""What state the process is in: starting, ready, draining; and what it owns from start to end.

Models are loaded beside the event loop, so that the process answers /livez from its first moment.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from rankd_service.bundle_watch import BundleWatch
from rankd_service.features.change_feed import Feed
from rankd_service.features.store import FeatureStore
from rankd_service.gauges import CrewGauges
from rankd_service.loop_watch import LoopWatch
from rankd_service.memory import MemoryWatch, Pressure
from rankd_service.settings import Settings

__all__ = ["Lifecycle", "State"]

_PING_S = 0.1
_MOST_NAMED = 20
_MEMORY = {
    Pressure.HIGH: "connections are closed after their answers",
    Pressure.CRITICAL: "ranking requests are refused",
}
_log = logging.getLogger(__name__)


class State(StrEnum):
    """Where the process is in its life."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether requests should be sent here, and what is missing either way.

    `nodes` says of each model how many nodes of its graph run on which provider.
    """

    ready: bool
    state: State
    store: str
    models: dict[str, int]
    nodes: dict[str, dict[str, int]]
    workers: dict[str, int]
    missing: list[str] = field(default_factory=list)


class Lifecycle:
    """Starts and stops what the process owns."""

    def __init__(
        self,
        bundles: BundleWatch,
        store: FeatureStore,
        feed: Feed | None,
        settings: Settings,
        watch: LoopWatch,
        memory: MemoryWatch,
        crew: CrewGauges | None = None,
        lets_go: Callable[[], bool] = lambda: False,
    ) -> None:
        """Keep the parts; nothing is started yet. Without a `crew` this is the only process that serves.

        `lets_go` says whether a connection had better be another's.
        """
        self._bundles, self._store, self._feed = bundles, store, feed
        self._settings, self._watch, self._memory = settings, watch, memory
        self.crew, self._lets_go = crew or _Alone(self), lets_go
        self.state = State.STARTING
        self.on_change: Callable[[], None] = lambda: None  # called at once, in the turn of the change
        self._stopping = asyncio.Event()
        self._models: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to load the models, and to follow what is published."""
        self._watch.start()
        self._models = asyncio.create_task(self._serve_models())

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        refuses = self._memory.pressure is Pressure.CRITICAL
        return self.state is State.SERVING and bool(self._bundles.versions()) and not refuses

    @property
    def draining(self) -> bool:
        """Whether requests that come now are sent elsewhere."""
        return self.state is State.DRAINING

    def closes_connection(self) -> bool:
        """Tell whether to close the connection that is being answered."""
        return self.draining or self._memory.pressure > Pressure.NONE or self._lets_go()

    def drain(self) -> None:
        """Take no more requests; those under way are finished."""
        self._become(State.DRAINING)
        _log.info("draining")

    async def stop(self) -> None:
        """Finish loading, then close the store."""
        self._become(State.DRAINING)
        self._stopping.set()
        self._watch.stop()
        self._bundles.stop()
        if self._models is not None:
            await asyncio.wait({self._models})
        if self._feed is not None:
            await self._feed.stop()
        await self._store.close()

    async def readiness(self) -> Readiness:
        """Look at the parts as they are now. A store that is down degrades answers, it does not stop them."""
        models, cards = self._bundles.versions(), self._bundles.cards()
        store_up = await self._store.ping(_PING_S)
        refused = self._bundles.refused
        missing = [_refusal(name, models.get(name)) for name in refused[:_MOST_NAMED]]
        if len(refused) > _MOST_NAMED:
            missing.append(f"{len(refused) - _MOST_NAMED} more models: their bundles were refused")
        if not models:
            none = f"models: none in {self._settings.models.repository}; publish one with `rankd export`"
            missing.append("models: none loaded yet" if self.state is State.STARTING else none)
        missing += [
            f"CUDA: preferred for {_plain(name)}, which runs on {card.provider}: {card.fallback}"
            for name, card in cards.items()
            if card.fallback
        ][:_MOST_NAMED]
        if not store_up:
            missing.append("store: not answering; answers are degraded")
        if self._memory.pressure is not Pressure.NONE:
            missing.append(f"memory: {self._memory.share:.0%} used; {_MEMORY[self._memory.pressure]}")
        missing += self.crew.missing()
        standings = self.crew.standings()
        return Readiness(
            ready=self.ready,
            state=self.state,
            store="up" if store_up else "down",
            models=models,
            nodes={name: dict(card.nodes) for name, card in cards.items()},
            workers={"ready": standings["ready"], "total": sum(standings.values())},
            missing=missing,
        )

    async def _serve_models(self) -> None:
        await self._bundles.look(self._stopping)
        if self._stopping.is_set():
            return
        await self._store.ping(_PING_S)  # opens a connection, so that the first request need not
        # What lives as long as the process need not be looked at again: a full collection over it takes
        # tens of milliseconds, in the middle of somebody's request.
        gc.collect()
        gc.freeze()
        if self.state is State.STARTING:
            self._become(State.SERVING)
        versions, refused = self._bundles.versions(), list(map(_plain, self._bundles.refused))
        if not versions:
            where = str(self._settings.models.repository.absolute())
            _log.warning("no model to serve; publish one with `rankd export`", extra={"repository": where})
        _log.info("serving", extra={"models": versions, "refused": refused})
        await self._bundles.warm(self._stopping)
        await self._bundles.follow(self._stopping)

    def _become(self, state: State) -> None:
        self.state = state
        self.on_change()


def _plain(name: str) -> str:
    return name.encode(errors="replace").decode()  # a folder's name may have any bytes


def _refusal(name: str, version: int | None) -> str:
    goes_on = f"; version {version} goes on being served" if version is not None else ""
    return f"model {_plain(name)}: its bundle was refused, the log says why{goes_on}"


class _Alone:
    """The crew of a service that is one process."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    def standings(self) -> Mapping[str, int]:
        return {"ready": int(self._lifecycle.ready), "not_ready": int(not self._lifecycle.ready)}

    def restarts(self) -> Mapping[str, int]:
        return {}

    def connections(self) -> Sequence[int]:
        return ()

    def missing(self) -> Sequence[str]:
        return ()
