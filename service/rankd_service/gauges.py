"""What parts of the service know of themselves, read when metrics are read: it costs a request nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = [
    "CrewCollector",
    "CrewGauges",
    "LimiterGauges",
    "MemoryGauges",
    "NearCacheCollector",
    "NearGauges",
    "StoreGauges",
]


class StoreGauges(Protocol):
    """What a store's client knows of itself."""

    @property
    def outstanding(self) -> int:
        """Reads that have not ended."""

    @property
    def abandoned(self) -> int:
        """Reads that nobody waits for any more."""

    @property
    def connections_opened(self) -> int:
        """Connections opened so far."""


class LimiterGauges(Protocol):
    """What the door knows of itself."""

    @property
    def value(self) -> int:
        """Requests that may be under way."""

    @property
    def under_way(self) -> int:
        """Requests that are."""

    @property
    def waiting(self) -> int:
        """Requests that wait."""


class MemoryGauges(Protocol):
    """What is known of the process's memory."""

    @property
    def share(self) -> float:
        """Share of what is allowed; 0 where there is no limit."""


class NearGauges(Protocol):
    """What the near caches know of themselves."""

    @property
    def hits(self) -> int:
        """Rows that were near at hand."""

    @property
    def misses(self) -> int:
        """Rows that were not."""

    @property
    def kept(self) -> int:
        """Rows kept."""

    @property
    def parts(self) -> PartGauges:
        """What became of what is computed of items alone."""


class PartGauges(Protocol):
    """What is known of the parts of a score that rest on the item alone."""

    @property
    def kept(self) -> int:
        """Candidates whose part was kept."""

    @property
    def computed(self) -> int:
        """Candidates whose part was computed."""


class CrewGauges(Protocol):
    """What is known of the processes that serve together."""

    def standings(self) -> Mapping[str, int]:
        """Processes by how they stand: `ready` and others."""

    def restarts(self) -> Mapping[str, int]:
        """Processes that were replaced, by cause."""

    def connections(self) -> Sequence[int]:
        """Open connections of each process."""

    def missing(self) -> Sequence[str]:
        """Which of them are not ready, in words."""


class NearCacheCollector(Collector):
    """Adds the near caches up when metrics are read: counting costs a request nothing that way."""

    def __init__(self, caches: NearGauges) -> None:
        """Keep the caches."""
        self._caches = caches

    def collect(self) -> Iterable[Metric]:
        """Read it now."""
        rows = CounterMetricFamily(
            "rankd_cache_requests",
            "Rows, and parts of scores, looked for near at hand.",
            labels=["cache", "result"],
        )
        rows.add_metric(["l1_item", "hit"], self._caches.hits)
        rows.add_metric(["l1_item", "miss"], self._caches.misses)
        rows.add_metric(["item_part", "hit"], self._caches.parts.kept)
        rows.add_metric(["item_part", "miss"], self._caches.parts.computed)
        kept = GaugeMetricFamily("rankd_cache_entries", "Rows kept near at hand.", labels=["cache"])
        kept.add_metric(["l1_item"], self._caches.kept)
        return rows, kept


class CrewCollector(Collector):
    """Reads what all processes see of each other."""

    def __init__(self, crew: CrewGauges) -> None:
        """Keep the crew."""
        self._crew = crew

    def collect(self) -> Iterable[Metric]:
        """Read it now."""
        workers = GaugeMetricFamily("rankd_workers", "Processes that serve together.", labels=["state"])
        for state, number in self._crew.standings().items():
            workers.add_metric([state], number)
        restarts = CounterMetricFamily(
            "rankd_worker_restarts", "Processes that ended and were replaced.", labels=["cause"]
        )
        for cause, number in self._crew.restarts().items():
            restarts.add_metric([cause], number)
        connections = GaugeMetricFamily(
            "rankd_worker_connections", "Open connections of each process.", labels=["worker"]
        )
        for worker, number in enumerate(self._crew.connections()):
            connections.add_metric([str(worker)], number)
        return workers, restarts, connections
