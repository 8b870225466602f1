"""How much of its memory the process has used, and what it leaves off when that is nearly all.

The kernel ends whoever goes beyond, with everything under way. So from nine tenths on connections are closed
after their answer and as few requests are under way as may be; from nineteen twentieths on ranking requests
are refused, until memory is given back. Probes and metrics are answered all along.

What counts is what the control group holds and cannot drop, its use less files that it may forget. Where an
operator says what a process may take, it is the process's own anonymous memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path

__all__ = ["MemoryWatch", "Pressure", "used_share"]

_HIGH, _CRITICAL = 0.90, 0.95
_RELIEF = 0.02  # below a bound before it counts as left, so that a ladder is not climbed up and down
_log = logging.getLogger(__name__)


class Pressure(IntEnum):
    """How near the end of memory is."""

    NONE = 0
    HIGH = 1
    CRITICAL = 2


class MemoryWatch:
    """Looks at the share of memory used. `measure` gives 0 where there is no limit."""

    def __init__(self, measure: Callable[[], float]) -> None:
        """See nothing yet."""
        self._measure = measure
        self.share, self.pressure = 0.0, Pressure.NONE

    def look(self) -> None:
        """Measure, and say so where the pressure is another."""
        self.share = self._measure()
        before = self.pressure
        for bound, pressure in ((_CRITICAL, Pressure.CRITICAL), (_HIGH, Pressure.HIGH)):
            if self.share >= bound - (_RELIEF if before >= pressure else 0.0):
                self.pressure = pressure
                break
        else:
            self.pressure = Pressure.NONE
        if self.pressure is not before:
            say = _log.warning if self.pressure > before else _log.info
            said = {"share": round(self.share, 3), "pressure": self.pressure.name.lower()}
            say("memory: %s", _WORDS[self.pressure], extra=said)


_WORDS = {
    Pressure.NONE: "enough again",
    Pressure.HIGH: "nearly used up, connections are closed after their answers, few requests are under way",
    Pressure.CRITICAL: "used up but for a twentieth, ranking requests are refused",
}


def used_share(allowed_mb: float | None, root: Path = Path("/")) -> Callable[[], float]:
    """Return how to measure: this process's own memory against so many MiB, or else its control group's."""
    if allowed_mb is not None:
        return lambda: _own_bytes(root) / (allowed_mb * (1 << 20))
    group = next(_limited_groups(root), None)
    return (lambda: 0.0) if group is None else (lambda: _group_share(group))


def _own_bytes(root: Path) -> float:
    """Anonymous memory: mapped weights are shared between processes, and may be dropped and read again."""
    for line in _lines(root / "proc/self/status"):
        if line.startswith("RssAnon:"):
            return 1024.0 * int(line.split()[1])
    return 0.0


def _limited_groups(root: Path) -> Iterator[Path]:
    """Find the groups above us that have a limit, nearest first; in a container its own is the root."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers:
            continue
        tree = root / "sys/fs/cgroup"
        group = tree / path.lstrip("/")
        while group.is_relative_to(tree):
            if _number(group / "memory.max") is not None:
                yield group
            group = group.parent


def _group_share(group: Path) -> float:
    limit, used = _number(group / "memory.max"), _number(group / "memory.current")
    if not limit or used is None:
        return 0.0
    stat = dict(line.split(maxsplit=1) for line in _lines(group / "memory.stat"))
    return max(0.0, used - int(stat.get("inactive_file", 0))) / limit


def _number(file: Path) -> float | None:
    (word, *_) = (*_lines(file), "max")
    return None if word.strip() == "max" else float(word)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
