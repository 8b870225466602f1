"""Keeps what is served in step with the repository: whatever a model's pointer names is loaded, then shown.

A bundle is loaded and replayed beside the event loop while the one before goes on answering, and becomes
visible by one assignment: a request finds the old version or the new one, never a mixture. A bundle that is
refused is never visible; it is tried once, and again only when the pointer has moved. The version that
served before stays loaded for a while, so that a roll back is a pointer's move and nothing more.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from rankd_contract.bundle import Pointer, model_names, read_pointer
from rankd_contract.errors import CorruptBundle
from rankd_service.errors import BundleRefused
from rankd_service.features.change_feed import Feed
from rankd_service.features.near_cache import NearCaches
from rankd_service.inference.loader import load_current
from rankd_service.inference.registry import LoadedModel, ModelRegistry
from rankd_service.settings import Settings
from rankd_service.telemetry import LoadOutcome, Telemetry

__all__ = ["BundleWatch"]

_log = logging.getLogger(__name__)


class BundleWatch:
    """Looks at the repository again and again; the registry shows what it found fit to serve."""

    def __init__(
        self,
        registry: ModelRegistry,
        near: NearCaches,
        feed: Feed | None,
        telemetry: Telemetry,
        settings: Settings,
    ) -> None:
        """Keep the parts; nothing is loaded yet."""
        self._registry, self._near, self._feed, self._telemetry = registry, near, feed, telemetry
        self._settings = settings
        self._repository: Path = settings.models.repository
        self._seen: dict[str, Pointer | None] = {}
        self._current: dict[str, LoadedModel] = {}
        self._earlier: dict[str, list[LoadedModel]] = {}
        self._complaint: str | None = None
        self.refused: set[str] = set()

    async def look(self) -> None:
        """Load what the pointers name and is not served yet, then show all of it at once."""
        moved = await asyncio.to_thread(self._moved)
        changed = False
        for name, pointer in moved.items():
            self._seen[name] = pointer
            model = self._kept(name, pointer) or await asyncio.to_thread(self._load, name)
            if model is None:
                self.refused.add(name)
                continue
            self.refused.discard(name)
            changed |= self._serve(name, model)
        if changed:
            self._show()

    def versions(self) -> dict[str, int]:
        """Return which version of each model answers."""
        return {name: model.card.version for name, model in self._current.items()}

    async def follow(self, stopping: asyncio.Event) -> None:
        """Look every `models.refresh_s` until told to stop; 0 is never."""
        every_s = self._settings.models.refresh_s
        stopped = asyncio.ensure_future(stopping.wait())
        while every_s and not stopped.done():
            await asyncio.wait((stopped,), timeout=every_s)
            if stopped.done():
                break
            try:
                await self.look()
            except Exception:  # whatever it was, the next look may go well, and what is served goes on
                _log.exception("looking for published models failed")
        stopped.cancel()

    def _moved(self) -> dict[str, Pointer | None]:
        """Return the models whose pointer is another than when it was looked at last; None: it is no good."""
        try:
            names = model_names(self._repository)
        except CorruptBundle as error:
            if str(error) != self._complaint:
                _log.error("no model can be found: %s", error)
            self._complaint = str(error)
            return {}
        self._complaint = None
        pointers: dict[str, Pointer | None] = {}
        for name in names:
            try:
                pointers[name] = read_pointer(self._repository, name)
            except CorruptBundle:
                pointers[name] = None
        return {name: p for name, p in pointers.items() if name not in self._seen or self._seen[name] != p}

    def _kept(self, name: str, pointer: Pointer | None) -> LoadedModel | None:
        """Return the model a pointer names, where it served before and is still loaded."""
        if pointer is None:
            return None
        loaded = [*self._earlier.get(name, ()), *([self._current[name]] if name in self._current else ())]
        wanted = pointer.version, pointer.digest
        return next((m for m in loaded if (m.card.version, m.card.digest) == wanted), None)

    def _load(self, name: str) -> LoadedModel | None:
        """Load a model; whatever is wrong with it must not keep the others from being served."""
        try:
            model = load_current(self._repository, name, self._settings, self._near)
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

    def _serve(self, name: str, model: LoadedModel) -> bool:
        """Make a model the current one of its name; say whether it was not yet."""
        before = self._current.get(name)
        if before is model:  # the pointer moved once more while its bundle was loaded
            return False
        self._current[name] = model
        if before is None:
            return True
        earlier = [before, *(m for m in self._earlier.get(name, ()) if m is not model)]
        self._earlier[name] = earlier[: self._settings.models.keep_warm]
        versions = {"version": model.card.version, "before": before.card.version}
        _log.info("another version is served", extra={"model": name, **versions})
        return True

    def _show(self) -> None:
        current = list(self._current.values())
        earlier = [model for kept in self._earlier.values() for model in kept]
        for model in (*current, *earlier):
            self._telemetry.serve(model.card, model.assembler.views)
        self._registry.publish(current, earlier)
        self._telemetry.show_models([model.card for model in current])
        self._near.retain({p for model in (*current, *earlier) for p in model.assembler.prefixes})
        if self._feed is not None:
            self._feed.start()
