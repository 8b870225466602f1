"""Keeps what is served in step with the repository: whatever a model's pointer names is loaded, then shown.

A bundle is loaded and replayed beside the event loop while the one before goes on answering, and becomes
visible by one assignment: a request finds the old version or the new one, never a mixture. A bundle that is
refused is never visible; it is tried again when the pointer has moved, and less and less often while it has
not: its files may still be on their way. The version before goes on: the one that is loaded, or, where the
process is new, the last one below the pointer's that is sound. What served before stays loaded for a while,
so that a roll back is a pointer's move and nothing more.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from rankd_contract.errors import CorruptBundle
from rankd_contract.repository import Pointer, model_names, read_pointer, versions
from rankd_service.domain import ModelCard
from rankd_service.errors import BundleRefused
from rankd_service.features.change_feed import Feed
from rankd_service.features.near_caches import NearCaches
from rankd_service.inference.loader import load_current, load_version
from rankd_service.inference.registry import LoadedModel, ModelRegistry
from rankd_service.inference.trial import Trial
from rankd_service.settings import Settings
from rankd_service.telemetry import LoadOutcome, Telemetry

__all__ = ["BundleWatch"]

_MOST_BEFORE = 3
_FIRST_PAUSE, _LONGEST_PAUSE = 8, 128  # looks
_log = logging.getLogger(__name__)


class _Patience:
    """How many looks a refused bundle is left alone for; twice as many each time."""

    def __init__(self) -> None:
        self._pause, self._left = _FIRST_PAUSE, 0

    def begin(self) -> None:
        self._left, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)

    def is_over(self) -> bool:
        self._left -= 1
        return self._left < 0


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
        self._trial = Trial(settings.models)
        self._seen: dict[str, Pointer | None] = {}
        self._current: dict[str, LoadedModel] = {}
        self._earlier: dict[str, list[LoadedModel]] = {}
        self._complaint: str | None = None
        self._said: dict[str, str] = {}
        self._patience: dict[str, _Patience] = {}

    @property
    def refused(self) -> list[str]:
        """Models whose pointer names what may not serve."""
        return sorted(self._patience)

    async def look(self, stopping: asyncio.Event) -> None:
        """Load what the pointers name and is not served yet, then show all of it at once; stops early."""
        try:
            await self._look(stopping)
        except Exception:  # whatever it was, the next look may go well, and what is served goes on
            _log.exception("looking for published models failed")
            self._telemetry.bundle_loaded(LoadOutcome.FAILED)

    async def _look(self, stopping: asyncio.Event) -> None:
        pointers = await asyncio.to_thread(self._pointers)
        if pointers is None:
            return
        for name in self._patience.keys() - pointers.keys():  # its folder is gone
            del self._patience[name]
        changed = False
        for name, pointer in pointers.items():
            if stopping.is_set():
                return
            if not self._is_due(name, pointer):
                continue
            self._seen[name] = pointer
            model = self._kept(name, pointer) or await asyncio.to_thread(self._load, name)
            if model is not None:
                self._patience.pop(name, None)
                self._said.pop(name, None)
            else:
                self._patience.setdefault(name, _Patience()).begin()
                if name not in self._current and pointer is not None:
                    model = await asyncio.to_thread(self._load_before, name, pointer)
            changed |= model is not None and self._serve(name, model)
        if changed:
            self._show()

    async def warm(self, stopping: asyncio.Event) -> None:
        """Load the newest other versions too, as a process that has served for longer has them."""
        changed = False
        for name, current in list(self._current.items()):
            wanted = self._settings.models.keep_warm - len(self._earlier.get(name, ()))
            for version in await asyncio.to_thread(self._others, name, current.card.version):
                if wanted <= 0 or stopping.is_set():
                    break
                model = await asyncio.to_thread(self._load_other, name, version)
                if model is not None:
                    self._earlier.setdefault(name, []).append(model)
                    wanted, changed = wanted - 1, True
        if changed:
            self._show()

    def versions(self) -> dict[str, int]:
        """Return which version of each model answers."""
        return {name: model.card.version for name, model in self._current.items()}

    def cards(self) -> dict[str, ModelCard]:
        """Return what may be said of each model that answers."""
        return {name: model.card for name, model in self._current.items()}

    def stop(self) -> None:
        """End what is being tried out; nothing is loaded any more."""
        self._trial.stop()

    async def follow(self, stopping: asyncio.Event) -> None:
        """Look every `models.refresh_s` until told to stop; 0 is never."""
        every_s = self._settings.models.refresh_s
        stopped = asyncio.ensure_future(stopping.wait())
        while every_s and not stopped.done():
            await asyncio.wait((stopped,), timeout=every_s)
            if stopped.done():
                break
            await self.look(stopping)
        stopped.cancel()

    def _pointers(self) -> dict[str, Pointer | None] | None:
        """Return every model's pointer, None where it is no good; None where nothing can be looked at."""
        try:
            names = model_names(self._repository)
        except CorruptBundle as error:
            if str(error) != self._complaint:
                _log.error("no model can be found: %s", error)
            self._complaint = str(error)
            return None
        self._complaint = None
        pointers: dict[str, Pointer | None] = {}
        for name in names:
            try:
                pointers[name] = read_pointer(self._repository, name)
            except CorruptBundle:
                pointers[name] = None
        return pointers

    def _is_due(self, name: str, pointer: Pointer | None) -> bool:
        """Say whether a pointer has moved, or was refused long enough ago to be tried again."""
        if name not in self._seen or self._seen[name] != pointer:
            self._patience.pop(name, None)
            return True
        return name in self._patience and self._patience[name].is_over()

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
            model = load_current(self._repository, name, self._settings, self._near, self._trial)
        except BundleRefused as error:
            if self._trial.stopped:  # it was not tried out to its end
                return None
            if self._said.get(name) != str(error):  # not again at every attempt
                _log.error("bundle refused: %s", error)
            self._said[name] = str(error)
            self._telemetry.bundle_loaded(LoadOutcome.REFUSED)
        except Exception:
            _log.exception("bundle of model %s: loading it failed", name)
            self._telemetry.bundle_loaded(LoadOutcome.FAILED)
        else:
            self._telemetry.bundle_loaded(LoadOutcome.LOADED)
            return model
        return None

    def _load_before(self, name: str, pointer: Pointer) -> LoadedModel | None:
        """Load the newest sound version below the pointer's: a new process has not the one before."""
        below = [version for version in self._others(name, pointer.version) if version < pointer.version]
        loaded = (self._load_other(name, version) for version in below[:_MOST_BEFORE])
        return next((model for model in loaded if model is not None), None)

    def _others(self, name: str, version: int) -> list[int]:
        """Versions on disk but for this one, newest first."""
        try:
            return sorted((v for v in versions(self._repository, name) if v != version), reverse=True)
        except OSError:
            return []

    def _load_other(self, name: str, version: int) -> LoadedModel | None:
        try:
            return load_version(self._repository, name, version, self._settings, self._near, self._trial)
        except BundleRefused as error:
            if not self._trial.stopped:
                _log.error("bundle refused: %s", error)
        except Exception:  # as in `_load`: what is published later must still be taken up
            _log.exception("version %d of model %s: loading it failed", version, name)
            self._telemetry.bundle_loaded(LoadOutcome.FAILED)
        return None

    def _check_cheaper(self, name: str, other: str) -> None:
        unserved = [model for model in (name, other) if model not in self._current]
        if unserved:
            _log.error("models.cheaper: %s for %s does nothing, %s is not served", other, name, unserved[0])
        elif self._registry.snapshot.cheaper(self._current[name]) is None:
            _log.error("models.cheaper: %s cannot score for %s, it reads other features", other, name)

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
        extra = {"model": name, "version": model.card.version, "before": before.card.version}
        _log.info("another version is served", extra=extra)
        return True

    def _show(self) -> None:
        current = list(self._current.values())
        earlier = [model for kept in self._earlier.values() for model in kept]
        for model in (*current, *earlier):
            self._telemetry.serve(model.card, model.assembler.views)
        cheaper = self._settings.models.cheaper
        self._registry.publish(current, earlier, cheaper)
        for name, other in cheaper.items():
            self._check_cheaper(name, other)
        self._telemetry.show_models([model.card for model in current])
        self._near.retain({p for model in (*current, *earlier) for p in model.assembler.prefixes})
        if self._feed is not None:
            self._feed.start()
