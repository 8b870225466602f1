"""Runs the service as its own process, the way an operator does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support.server import free_port, until

__all__ = ["ServiceProcess", "environment", "service_process"]


@dataclass(frozen=True)
class ServiceProcess:
    """A service that runs on its own."""

    address: str
    process: subprocess.Popen[bytes]

    def resident_bytes(self) -> int:
        """Memory of the process that is in use right now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def workers(self) -> list[int]:
        """Its workers, where there are several."""
        return [pid for pid in self.children() if _read(pid, "comm").startswith("rankd-worker-")]

    def nursery(self) -> int:
        """The process that forks them."""
        (found,) = [pid for pid in self.children() if _read(pid, "comm").startswith("rankd-nursery")]
        return found

    def children(self) -> list[int]:
        """Every process that it started, and those that they started."""
        parents = {int(e.name): _parent(int(e.name)) for e in Path("/proc").iterdir() if e.name.isdigit()}
        found = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return sorted(found - {self.process.pid})


def _parent(pid: int) -> int:
    """The parent of a process; 0 where it is gone."""
    stat = _read(pid, "stat")
    return int(stat.rpartition(")")[2].split()[1]) if stat else 0


def _read(pid: int, what: str) -> str:
    try:
        return Path(f"/proc/{pid}/{what}").read_text(encoding="utf-8")
    except OSError:
        return ""


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without what configures a service, and with `changes`."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RANKD_") and k != "REDIS_URL"}
    return {**inherited, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **changes}


@contextmanager
def service_process(
    folder: Path, settings: Mapping[str, Mapping[str, object]], **changes: str
) -> Iterator[ServiceProcess]:
    """Start `python -m rankd_service` on a free port, wait until its start has ended, stop it at the end.

    Requests that name no deadline have time: on a machine that stalls, a late answer is no lost one.
    """
    port, config = free_port(), folder / "rankd.yaml"
    server = {"workers": 1, "lame_duck_s": 0, **settings.get("server", {}), "port": port}
    limits = {"default_deadline_ms": 10_000, **settings.get("limits", {})}
    config.write_text(yaml.safe_dump({**settings, "server": server, "limits": limits}))
    command = [sys.executable, "-m", "rankd_service", "--config", str(config)]
    process = subprocess.Popen(command, env=environment(**changes), stderr=subprocess.PIPE)
    try:
        until(f"http://127.0.0.1:{port}/startupz")
        yield ServiceProcess(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        process.communicate(timeout=30)
