"""Hears of changes from every primary of a cluster: a feed each, and their words put together.

Rows near at hand are trusted while all primaries tell of their changes, and as far as the oldest of their
words reaches. A row does not know its primary, so that the loss of one feed leaves all of them untrusted, and
they are forgotten before they are trusted again; the other primaries are asked for rows in the meantime.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence

from rankd_service.deadline import Clock
from rankd_service.errors import StartupFailed
from rankd_service.features.change_feed import ChangeFeed
from rankd_service.features.near_caches import NearCaches
from rankd_service.features.slot_map import SlotMap
from rankd_service.features.store_address import NodeAddress, StoreAddress
from rankd_service.features.topology import Topology

__all__ = ["ClusterFeed"]

_log = logging.getLogger(__name__)


class ClusterFeed:
    """Follows the primaries of a topology's map, as it changes."""

    def __init__(
        self,
        address: StoreAddress,
        topology: Topology,
        caches: NearCaches,
        *,
        connect_timeout_s: float,
        clock: Clock,
    ) -> None:
        """Be told of maps; nothing is followed yet."""
        self._address, self._topology, self._caches = address, topology, caches
        self._connect_timeout_s, self._clock = connect_timeout_s, clock
        self._feeds: dict[NodeAddress, tuple[ChangeFeed, _Voice]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._started, self._num_primaries = False, 0
        topology.watch(self._follow, self._caches.distrust)

    @property
    def following(self) -> bool:
        """Whether every primary tells of its changes."""
        return len(self._feeds) == self._num_primaries > 0 and all(
            feed.following for feed, _ in self._feeds.values()
        )

    def start(self) -> None:
        """Begin to follow. Does nothing where nothing is kept."""
        self._started = bool(self._caches.prefixes)
        if self._started and self._topology.map is not None:
            self._follow(self._topology.map)

    async def stop(self) -> None:
        """Give the connections back. The caches are not trusted afterwards."""
        self._started = False
        for node in list(self._feeds):
            self._end(node)
        if self._ending:
            await asyncio.wait(self._ending)
        self._caches.distrust()

    def _follow(self, slots: SlotMap) -> None:
        """Follow the primaries of a new map, which is not trusted for what was told under the old one."""
        if not self._started:
            return
        self._caches.distrust()
        self._num_primaries = len(slots.primaries)
        for node in self._feeds.keys() - set(slots.primaries):
            self._end(node)
        for node in slots.primaries:
            if node not in self._feeds:
                voice = _Voice(self._caches, self._changed_its_mind, self._confirmed, self._clock)
                try:
                    feed = ChangeFeed(
                        self._address.of_node(node),
                        voice,
                        connect_timeout_s=self._connect_timeout_s,
                        clock=self._clock,
                    )
                except StartupFailed as error:  # the others call it by no name: nothing is trusted meanwhile
                    _log.warning("a primary cannot be followed: %s", error)
                    continue
                self._feeds[node] = feed, voice
                feed.start()
        self._changed_its_mind()

    def _end(self, node: NodeAddress) -> None:
        feed, voice = self._feeds.pop(node)
        voice.silence()
        task = asyncio.create_task(feed.stop())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _changed_its_mind(self) -> None:
        """Trust what all tell of changes of, from now on; where one tells of none, nothing."""
        told = [voice.told for _, voice in self._feeds.values() if voice.told is not None]
        if told and len(told) == self._num_primaries:
            self._caches.trust(frozenset.intersection(*told))
            self._confirmed()
        else:
            self._caches.distrust()

    def _confirmed(self) -> None:
        self._caches.confirm(min(voice.confirmed_s for _, voice in self._feeds.values()))


class _Voice:
    """What one primary says, in place of the caches its feed would tell."""

    def __init__(
        self, caches: NearCaches, on_trust: Callable[[], None], on_word: Callable[[], None], clock: Clock
    ) -> None:
        self._caches, self._on_trust, self._on_word, self._clock = caches, on_trust, on_word, clock
        self._silent, self.confirmed_s = False, float("-inf")
        self.told: frozenset[str] | None = None

    @property
    def prefixes(self) -> list[str]:
        return self._caches.prefixes

    def trust(self, prefixes: Collection[str]) -> None:
        self.confirmed_s = self._clock.monotonic_s()
        self._set(frozenset(prefixes))

    def distrust(self) -> None:
        self._set(None)

    def confirm(self, when_s: float) -> None:
        self.confirmed_s = when_s
        if not self._silent:
            self._on_word()

    def changed(self, keys: Sequence[bytes] | None) -> None:
        self._caches.changed(keys)

    def silence(self) -> None:
        """Be listened to no more: the feed is ending."""
        self._silent = True

    def _set(self, told: frozenset[str] | None) -> None:
        self.told = told
        if not self._silent:
            self._on_trust()
