"""Sums the workers' metrics, so that whoever is scraped answers for all, and no counter ever falls.

Every scrape passes through here: what a worker counted when it was last asked is kept when it ends, and goes
on being part of the sum. So a scrape can never have seen more than the next one will. What is lost with a
worker that is killed is what it counted after the last scrape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["Totals"]

Families = list[dict[str, Any]]
Series = tuple[str, tuple[tuple[str, str], ...]]


class Totals:
    """The latest snapshot of each living worker, and the sum of those that are gone."""

    def __init__(self) -> None:
        """Know of no worker."""
        self._living: dict[int, Families] = {}
        self._gone: Families = []

    def keep(self, worker: int, families: Families) -> None:
        """Replace what is known of a living worker."""
        self._living[worker] = families

    def retire(self, worker: int) -> None:
        """Note that a worker ended: what it counted stays, what it was doing does not."""
        last = self._living.pop(worker, [])
        counted = [family for family in last if family["merge"] == "count"]
        self._gone = _merged([self._gone, counted])

    def merged(self, asking: int) -> Families:
        """Return all families; those that every worker tells of the whole, as the asking one tells them."""
        others = [families for worker, families in self._living.items() if worker != asking]
        return _merged([self._living.get(asking, []), *others, self._gone])


def _merged(sources: Iterable[Families]) -> Families:
    families: dict[str, dict[str, Any]] = {}
    values: dict[str, dict[Series, float]] = {}
    for source in sources:
        for family in source:
            name = family["name"]
            if name not in families:
                families[name], values[name] = family, {}
            elif family["merge"] == "whole":
                continue
            for sample, labels, value in family["samples"]:
                series = sample, tuple(labels.items())
                known = values[name].get(series)
                merge = _MERGES["least" if sample.endswith("_created") else family["merge"]]
                values[name][series] = value if known is None else merge(known, value)
    return [
        {
            **family,
            "samples": [[sample, dict(labels), value] for (sample, labels), value in values[name].items()],
        }
        for name, family in families.items()
    ]


def _sum(a: float, b: float) -> float:
    return a + b


def _first(a: float, b: float) -> float:
    return a


_MERGES: dict[str, Callable[[float, float], float]] = {
    "count": _sum,
    "sum": _sum,
    "least": min,
    "most": max,
    "whole": _first,
}
