"""Keeps the map of a cluster's slots current: asks some node for it, again whenever somebody doubts it.

No request waits for that, but the first ones, which have no map yet. A node that was cut off from the others
has an old map: one that is older than the map known is only taken where nobody has a newer one.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence

from rankd_service.errors import StartupFailed, StoreErrorKind, StoreUnavailable
from rankd_service.features.slot_map import SlotMap
from rankd_service.features.store_address import NodeAddress

__all__ = ["AskForMap", "Topology"]

_EVERY_S = 5.0  # how long a map may be wrong that nobody doubts, such as of a primary cut off from the others
_PAUSE_S = 0.25  # between two rounds, however many doubt it
_log = logging.getLogger(__name__)

AskForMap = Callable[[NodeAddress], Awaitable[SlotMap]]
"""Asks one node for its map. Raises StoreUnavailable."""


class Topology:
    """The map as last heard. Started by the first who needs it, stopped by whoever made it."""

    def __init__(
        self,
        seeds: Sequence[NodeAddress],
        ask: AskForMap,
        share: Callable[[float, float], float] = random.uniform,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin with the nodes of an address; `on_failure` counts rounds that ended as nobody foresaw."""
        self._seeds, self._ask, self._share, self._on_failure = tuple(seeds), ask, share, on_failure
        self.map: SlotMap | None = None
        self._failure: StoreUnavailable | None = None
        self._task: asyncio.Task[None] | None = None
        self._heard, self._doubted = asyncio.Event(), asyncio.Event()
        self._on_map: list[Callable[[SlotMap], None]] = []
        self._on_stray: list[Callable[[], None]] = []
        self._strayed = False

    def watch(self, on_map: Callable[[SlotMap], None], on_stray: Callable[[], None] | None = None) -> None:
        """Have somebody told of keys beyond the map, and of every map that is new or follows such a key."""
        self._on_map.append(on_map)
        if on_stray is not None:
            self._on_stray.append(on_stray)

    def doubt(self) -> None:
        """Ask for the map again, soon."""
        self._doubted.set()

    def stray(self) -> None:
        """Note that a key is at a node which is not on the map."""
        self._strayed = True
        for tell in self._on_stray:
            tell()
        self.doubt()

    async def known(self, budget_s: float) -> SlotMap:
        """Return the map, where there is none yet as soon as one comes. Raises StoreUnavailable."""
        if self.map is not None:
            return self.map
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(budget_s):
                await self._heard.wait()
        except TimeoutError:
            pass
        if self.map is None:
            self.doubt()
            raise self._failure or StoreUnavailable(
                StoreErrorKind.TIMEOUT, "the cluster's slots are not known yet"
            )
        return self.map

    async def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        while True:
            self._doubted.clear()
            try:
                await self._refresh()
            except Exception:  # whatever it was, the next round may go well, and the map stays
                _log.exception("asking for the cluster's slots failed")
                self._on_failure()
            await asyncio.sleep(_PAUSE_S * self._share(0.5, 1.0))
            try:
                async with asyncio.timeout(_EVERY_S * self._share(0.5, 1.0)):
                    await self._doubted.wait()
            except TimeoutError:
                pass

    async def _refresh(self) -> None:
        """Ask nodes in an order of chance until one has a map that is not older than the one known."""
        nodes = list(dict.fromkeys([*(self.map.primaries if self.map else ()), *self._seeds]))
        random.shuffle(nodes)
        newest: SlotMap | None = None
        for node in nodes:
            try:
                found = await self._ask(node)
            except StoreUnavailable as failure:
                self._failure = failure
                continue
            except StartupFailed as error:  # a node that another calls by no name
                self._failure = StoreUnavailable(StoreErrorKind.REFUSED, str(error))
                continue
            if newest is None or found.epoch > newest.epoch:
                newest = found
            if self.map is None or found.epoch >= self.map.epoch:
                break
        if newest is not None:
            self._take(newest)
        self._heard.set()

    def _take(self, found: SlotMap) -> None:
        before, self.map = self.map, found
        if before is None or not before.same_as(found):
            primaries = [str(node) for node in found.primaries]
            _log.info("the cluster's slots", extra={"primaries": primaries, "uncovered": found.uncovered})
        elif not self._strayed:
            return
        self._strayed = False
        for tell in self._on_map:
            tell(found)
