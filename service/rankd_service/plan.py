"""How many processes serve, and with how many threads each runs a graph: decided once, said at the start.

By default one process a core that may be used, one thread each: whole requests run beside each other, not
only their graphs. Threads are for few and large requests, and asked for (bench/workers.py measures both).
"""

from __future__ import annotations

from dataclasses import dataclass

from rankd_service.cores import Cores
from rankd_service.settings import Settings

__all__ = ["Plan", "plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """`cores` may be used (a quota may be a fraction); each of `workers` runs graphs on `threads`."""

    cores: float
    workers: int
    threads: int

    @property
    def figures(self) -> dict[str, float]:
        """The plan for the log."""
        return {"cores": self.cores, "workers": self.workers, "threads": self.threads}

    @property
    def objection(self) -> str | None:
        """What speaks against it, for the log, or None."""
        wanted = self.workers * self.threads
        if wanted <= max(1.0, self.cores):
            return None
        return (
            f"{self.workers} workers with {self.threads} threads each want {wanted} cores where "
            f"{self.cores:g} may be used: requests will wait for each other; lower server.workers or "
            "inference.threads"
        )


def plan(settings: Settings, cores: Cores) -> Plan:
    """Take what the settings say; where they say nothing, one worker for each whole core."""
    workers = settings.server.workers or max(1, int(cores.usable))
    return Plan(cores.usable, workers, settings.inference.threads)
