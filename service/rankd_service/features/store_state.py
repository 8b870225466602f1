"""What processes that share an embedded store tell each other: `store.json` and a lock in its folder.

The file names the server's process by its id and its start time, because ids are used again. A file that
names no running process, or one that does not listen on the port it names, is as good as none.
"""

from __future__ import annotations

import fcntl
import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["StoreState", "is_free", "locked", "started_at"]

_STATE, _LOCK = "store.json", "store.lock"
_CONNECT_S = 1.0


@dataclass(frozen=True, slots=True)
class StoreState:
    """The server that runs for a folder, or ran last."""

    pid: int
    port: int
    started: str

    @classmethod
    def read(cls, folder: Path) -> StoreState | None:
        """Return what the folder's file says, or None where there is no usable one."""
        try:
            tree = json.loads((folder / _STATE).read_bytes())
            return cls(int(tree["pid"]), int(tree["port"]), str(tree["started"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        """Put the file in place as a whole."""
        fresh = folder / f".{_STATE}"
        fresh.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        fresh.replace(folder / _STATE)

    def forget(self, folder: Path) -> None:
        """Remove the file if it still names this server."""
        if StoreState.read(folder) == self:
            (folder / _STATE).unlink(missing_ok=True)

    def is_running(self) -> bool:
        """Tell whether the process still runs."""
        return started_at(self.pid) == self.started

    def is_serving(self) -> bool:
        """Tell whether the process still runs and its port takes connections; a frozen server's does."""
        return self.is_running() and not is_free(self.port)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; processes that start a store on one folder take turns."""
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def started_at(pid: int) -> str | None:
    """Return when a process was started, as the system spells it; None where it does not run."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None if Path("/proc/self/stat").exists() else _started_at_by_ps(pid)
    # The name in parentheses may hold anything; state is the field after it, the start time the 20th.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def is_free(port: int) -> bool:
    """Tell whether nobody takes connections on a loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_CONNECT_S):
            return False
    except OSError:
        return True


def _started_at_by_ps(pid: int) -> str | None:
    listed = ["/bin/ps", "-o", "lstart=", "-p", str(pid)]
    found = subprocess.run(listed, capture_output=True, text=True, check=False).stdout.strip()
    return found or None
