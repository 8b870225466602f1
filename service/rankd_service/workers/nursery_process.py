"""The process that workers are forks of: it has loaded what they need, and has one thread and one socket.

An order is a worker's number and brings its three descriptors; the answer is the worker's process id. The
worker is the fork of a fork that has ended: so its parent is the supervisor, which adopts orphans while an
order is under way. Nothing is kept of it here: this process may be killed any time, and ends with its line.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from setproctitle import setproctitle

from rankd_service.workers.worker import main as work

__all__ = ["main"]

# With the import path of this process, whatever made it, and none of the working folder's own.
_WORKER = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from rankd_service.workers.worker import main
sys.exit(main(sys.argv[2:5]))
"""
_LONGEST_ORDER, _DESCRIPTORS, _MOST_NAMED = 64, 3, 10
_STANDARD = 3  # input, output, errors
_TASKS = Path("/proc/self/task")
# A signal to all processes of the service is for the workers; the nursery ends with its line.
_NOT_MINE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str]) -> int:
    """Make workers until the line ends -> exit code, of this process or of the worker that it has become."""
    setproctitle("rankd-nursery")
    before = {sign: signal.signal(sign, signal.SIG_IGN) for sign in _NOT_MINE}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, forks cannot be waited for
    line = socket.socket(fileno=int(arguments[0]))
    threads = sorted((task / "comm").read_text(encoding="utf-8").strip() for task in _TASKS.iterdir())
    forked = len(threads) == 1  # a fork would take one of them along, and the locks of all
    gc.collect()
    gc.freeze()  # a collection would write to every page that workers share
    while True:
        order, given, _, _ = socket.recv_fds(line, _LONGEST_ORDER, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        if not order:
            return 0
        try:
            if len(given) < _DESCRIPTORS:  # the system leaves off those that there is no room for
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            pid = _fork()
        except OSError as error:
            answer: dict[str, Any] = {"errno": error.errno}
        else:
            if pid == 0:
                line.detach()
                for sign, handler in before.items():
                    signal.signal(sign, handler)
                return _become(given, forked=forked)
            answer = {"pid": pid, "threads": [] if forked else threads[:_MOST_NAMED]}
        for descriptor in given:
            os.close(descriptor)
        line.send(json.dumps(answer).encode())


def _fork() -> int:
    """Fork twice and let the process between end -> the fork's process id, 0 in it. Raises OSError."""
    reading, writing = os.pipe()
    try:
        between = os.fork()
        if between == 0:
            return _fork_and_end(writing)
        _, status = os.waitpid(between, 0)  # from now on the supervisor is the parent
        code = os.waitstatus_to_exitcode(status)
        if code:
            raise OSError(code if code > 0 else errno.ECHILD, "cannot fork")
        return int.from_bytes(os.read(reading, 8), sys.byteorder)
    finally:
        os.close(reading)
        os.close(writing)


def _fork_and_end(writing: int) -> int:
    """Leave only a fork behind -> 0 in it."""
    try:
        pid = os.fork()
        if pid:
            os.write(writing, pid.to_bytes(8, sys.byteorder))
    except OSError as error:
        os._exit(error.errno or errno.ECHILD)
    if pid:
        os._exit(0)
    return 0


def _become(given: Sequence[int], *, forked: bool) -> int:
    """Be a worker, with the descriptors it was given and no other -> its exit code."""
    os.setpgid(0, 0)  # Ctrl-C is for the supervisor, which tells the workers
    below = _STANDARD
    for fd in sorted(given):
        os.closerange(below, fd)
        below = fd + 1
    os.closerange(below, os.sysconf("SC_OPEN_MAX"))
    descriptors = [str(fd) for fd in given]
    if not forked:
        for fd in given:
            os.set_inheritable(fd, True)
        path = json.dumps(sys.path)
        os.execv(sys.executable, [sys.executable, "-P", "-c", _WORKER, path, *descriptors])  # noqa: S606
    return work(descriptors)
