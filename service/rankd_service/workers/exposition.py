"""Metrics as plain values that can cross to another process, and back into what Prometheus' encoders take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from rankd_service.workers.merging import merging

__all__ = ["Families", "snapshot"]


def snapshot(registry: CollectorRegistry) -> list[dict[str, Any]]:
    """Read all metrics now, each family with the way it is to be merged with those of other workers."""
    return [
        {
            "name": family.name,
            "type": family.type,
            "help": family.documentation,
            "merge": merging(family.name, family.type).value,
            "samples": [[sample.name, sample.labels, sample.value] for sample in family.samples],
        }
        for family in registry.collect()
    ]


class Families(Collector):
    """Snapshots as something to encode."""

    def __init__(self, families: Iterable[dict[str, Any]]) -> None:
        """Keep them."""
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Yield each family."""
        for family in self._families:
            metric = Metric(family["name"], family["help"], family["type"])
            metric.samples = [Sample(name, labels, value) for name, labels, value in family["samples"]]
            yield metric
