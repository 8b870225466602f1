"""The supervisor's hand on the nursery: asks for workers, hears of their births and ends.

Nothing here waits. A worker is told of before it is born: what is to be done to it meanwhile is done then. A
nursery that dies takes nobody with it, and the next worker that is needed brings another.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

from rankd_service.workers.place import Started

__all__ = ["Forked", "Nursery"]

# With the import path of this process, whatever made it, and none of the working folder's own. A thread of
# numpy's would not survive a fork.
_BOOT = """
import json, os, sys
os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path[:] = json.loads(sys.argv[1])
from rankd_service.workers.nursery_process import main
sys.exit(main(sys.argv[2:3]))
"""
_MESSAGE_BYTES = 1024
_BIRTH_S = 60.0  # its imports on a slow disk included
_END_S = 2.0
_WORD_S = 0.5
_UNKNOWN = 1
_log = logging.getLogger(__name__)


class Forked:
    """A worker that the nursery forks, or has forked."""

    def __init__(self, give_up: Callable[[], None]) -> None:
        """Not be born yet; `give_up` ends the nursery."""
        self._give_up = give_up
        self.pid: int | None = None
        self._handle: int | None = None
        self._code: int | None = None
        self._told: signal.Signals | None = None

    def born(self, pid: int, handle: int | None) -> None:
        """Take its number, and a descriptor that means this process and no later one of its number."""
        self.pid, self._handle = pid, handle
        if handle is not None:
            asyncio.get_running_loop().add_reader(handle, self._gone, handle)
        if self._told is not None:
            self.send_signal(self._told)

    def ended(self, code: int) -> None:
        """Take its exit code; negative: a signal. Only the first counts."""
        if self._code is None:
            self._code = code
        if self._handle is not None:
            asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)
            self._handle = None

    def poll(self) -> int | None:
        """Return the exit code, once it has ended."""
        return self._code

    def send_signal(self, sign: signal.Signals) -> None:
        """Send a signal, or as soon as it is born; what is not born goes with the nursery."""
        self._told = sign
        if self.pid is None and sign is signal.SIGKILL:
            self._give_up()
        with suppress(ProcessLookupError):
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, sign)
            elif self.pid is not None and self._code is None:
                os.kill(self.pid, sign)

    def orphaned(self) -> None:
        """Note that the nursery is gone: who was not born will not be, others' handles tell their end."""
        if self._handle is None:
            self.ended(_UNKNOWN)

    def _gone(self, handle: int) -> None:
        """It has ended; with what code is the nursery's to say, if that is well."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(handle)
        loop.call_later(_WORD_S, self._end_untold, handle)

    def _end_untold(self, handle: int) -> None:
        if self._handle is not None:
            self.ended(_code_of(handle))


class Nursery:
    """Starts workers on one socket and one board; there is a nursery while there are any."""

    def __init__(self, listener: socket.socket, page: int) -> None:
        """Start nothing yet; `page` is the board's descriptor."""
        self._listener, self._page = listener, page
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._unborn: list[Forked] = []
        self._alive: dict[int, Forked] = {}

    def spawn(self, number: int) -> Started:
        """Have a worker started, from the running event loop. Raises OSError."""
        line = self._line or self._open()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                order = json.dumps({"worker": number}).encode()
                socket.send_fds(line, [order], [theirs.fileno(), self._listener.fileno(), self._page])
            except OSError:
                ours.close()
                raise
        forked = Forked(self._give_up)
        self._unborn.append(forked)
        asyncio.get_running_loop().call_later(_BIRTH_S, self._expect, forked)
        return Started(forked, ours)

    def close(self) -> None:
        """End it, once all workers have."""
        if self._process is None or self._line is None:
            return
        self._line.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = self._line = None

    def _open(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        "-P",
                        "-c",
                        _BOOT,
                        json.dumps(sys.path),
                        str(theirs.fileno()),
                        "rankd-nursery",
                    ],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    process_group=0,  # Ctrl-C is for the supervisor, which tells the workers
                )
            except OSError:
                ours.close()
                raise
        self._line = ours
        asyncio.get_running_loop().add_reader(ours, self._hear)
        return ours

    def _hear(self) -> None:
        assert self._line is not None
        try:
            message, handles, _, _ = socket.recv_fds(self._line, _MESSAGE_BYTES, 1)
        except BlockingIOError:
            return
        except OSError:
            message, handles = b"", []
        if not message:
            self._lost()
            return
        told = json.loads(message)
        if "code" in told:
            self._alive.pop(told["pid"]).ended(told["code"])
            return
        forked = self._unborn.pop(0)
        self._alive[told["pid"]] = forked
        forked.born(told["pid"], handles[0] if handles else None)
        _log.info("worker started", extra={"worker": told["worker"], "pid": told["pid"]})

    def _lost(self) -> None:
        """Go on without the nursery: the workers serve on, and the next one brings a new nursery."""
        assert self._line is not None
        assert self._process is not None
        asyncio.get_running_loop().remove_reader(self._line)
        self._line.close()
        self._process.kill()
        code = self._process.wait()
        _log.error("the nursery of workers ended", extra={"exit_code": code})
        for forked in (*self._unborn, *self._alive.values()):
            forked.orphaned()
        self._unborn, self._alive = [], {}
        self._process = self._line = None

    def _expect(self, forked: Forked) -> None:
        if forked.pid is None and forked.poll() is None:
            self._give_up()

    def _give_up(self) -> None:
        """End a nursery that does not obey; its line breaks, and so do those of workers it has not forked."""
        if self._process is not None:
            self._process.kill()


def _code_of(handle: int) -> int:
    """Return the exit code of an orphan, where it is ours: they go to the first process of a container."""
    try:
        ended = os.waitid(os.P_PIDFD, handle, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return _UNKNOWN
    if ended is None:
        return _UNKNOWN
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
