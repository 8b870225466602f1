"""A child that another process has started for this one, which `subprocess` knows nothing of."""

from __future__ import annotations

import os
import signal

__all__ = ["Adopted"]

_UNKNOWN = 255


class Adopted:
    """A process whose parent we are. Only this waits for it, so the id stays its own until then."""

    def __init__(self, pid: int) -> None:
        """Know its process id."""
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return its exit code once it has ended; negative: a signal."""
        if self._code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # we were started with SIGCHLD ignored, and then nobody is told
                self._code = _UNKNOWN
            else:
                self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def send_signal(self, sign: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sign)
