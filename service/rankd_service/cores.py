"""How many cores this process may really use: the machine's, its affinity, and its control group's quota.

A container that may use two of 64 cores still sees 64; a pool sized by that number waits for itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cores", "cores"]


@dataclass(frozen=True, slots=True)
class Cores:
    """Cores of the machine, those the scheduler may pick from, and the quota in cores (None: no limit)."""

    machine: int
    affinity: int
    quota: float | None

    @property
    def usable(self) -> float:
        """What the process can keep busy."""
        return min(self.affinity, self.quota) if self.quota is not None else float(self.affinity)


def cores(root: Path = Path("/")) -> Cores:
    """Look at this process; `root` is where `/proc` and `/sys` are."""
    machine = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    return Cores(machine, affinity, min(_quotas(root), default=None))


def _quotas(root: Path) -> Iterator[float]:
    """Read every limit above us: a parent's quota binds its children too."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return  # not Linux
    mounted = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        named = controllers.split(",")
        if controllers and "cpu" not in named:
            continue
        # Version 2 has one tree and no named controllers; version 1 one tree a controller.
        tree = mounted / "cpu" if controllers else mounted
        group = tree / path.lstrip("/")
        while group.is_relative_to(tree):
            quota = _version_1(group) if controllers else _version_2(group)
            if quota is not None:
                yield quota
            group = group.parent


def _version_2(group: Path) -> float | None:
    words = _words(group / "cpu.max")
    return int(words[0]) / int(words[1]) if words and words[0] != "max" else None


def _version_1(group: Path) -> float | None:
    quota, period = _words(group / "cpu.cfs_quota_us"), _words(group / "cpu.cfs_period_us")
    return int(quota[0]) / int(period[0]) if quota and period and int(quota[0]) > 0 else None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split()
    except OSError:
        return []
