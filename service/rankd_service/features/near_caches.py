"""The near caches of all views, told together what the store says of changes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from rankd_service.deadline import Clock
from rankd_service.features.near_cache import MOST_CHANGES, NearCache, NearLimits
from rankd_service.inference.item_parts import Tally

__all__ = ["NearCaches"]


class NearCaches:
    """The near caches of all views, by the prefix of their keys; models over the same rows share one."""

    def __init__(self, limits: NearLimits, clock: Clock) -> None:
        """Start with none."""
        self._limits, self._clock = limits, clock
        self._by_prefix: dict[str, NearCache] = {}
        self._hits_gone = self._misses_gone = 0
        self.parts = Tally()

    def of(self, prefix: str, num_ids: int, num_values: int) -> NearCache:
        """Return the cache of the rows whose keys begin with `prefix`."""
        cache = self._by_prefix.get(prefix)
        if cache is None:
            cache = NearCache(num_ids, num_values, self._limits, self._clock)
            # Models are loaded beside the event loop, which may be going through the others right now.
            self._by_prefix = {**self._by_prefix, prefix: cache}
        return cache

    @property
    def keeps(self) -> bool:
        """Whether there is room for any row."""
        return self._limits.bytes_a_view > 0

    def retain(self, prefixes: Collection[str]) -> None:
        """Let go of the caches that no served model reads; what they counted stays counted."""
        for prefix in self._by_prefix.keys() - prefixes:
            self._hits_gone += self._by_prefix[prefix].hits
            self._misses_gone += self._by_prefix[prefix].misses
        self._by_prefix = {prefix: c for prefix, c in self._by_prefix.items() if prefix in prefixes}

    @property
    def hits(self) -> int:
        """Rows that were found near at hand, ever."""
        return self._hits_gone + sum(cache.hits for cache in self)

    @property
    def misses(self) -> int:
        """Rows that were looked for in vain, ever."""
        return self._misses_gone + sum(cache.misses for cache in self)

    @property
    def kept(self) -> int:
        """Rows near at hand now."""
        return sum(map(len, self))

    @property
    def prefixes(self) -> list[str]:
        """What keys of interest begin with; none where nothing is kept."""
        return sorted(self._by_prefix) if self.keeps else []

    def __iter__(self) -> Iterator[NearCache]:
        """Go through the caches."""
        return iter(self._by_prefix.values())

    def trust(self, prefixes: Collection[str]) -> None:
        """Tell the caches of these prefixes that every change is told from now on."""
        for prefix, cache in self._by_prefix.items():
            if prefix in prefixes:
                cache.trust()

    def confirm(self, when_s: float) -> None:
        """Tell all caches that every change up to then has been told."""
        for cache in self:
            cache.confirm(when_s)

    def distrust(self) -> None:
        """Tell all caches that changes may have been missed."""
        for cache in self:
            cache.distrust()

    def changed(self, keys: Sequence[bytes] | None) -> None:
        """Drop the rows of these keys; of all keys where it is None."""
        for prefix, cache in self._by_prefix.items():
            if keys is None or len(keys) > MOST_CHANGES:  # a bulk import: forgetting all holds nobody up
                cache.clear()
                continue
            start = prefix.encode()
            cache.drop([key[len(start) :].decode(errors="replace") for key in keys if key.startswith(start)])
