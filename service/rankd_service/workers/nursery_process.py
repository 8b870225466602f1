"""The nursery: a process that has imported what workers need, and forks one where it is told to.

So a worker shares that memory with the others, and starts without importing it again. A fork keeps one thread
of all that a process has, so nothing here may start any: onnxruntime does as it is imported, and is left to
the worker. What was imported is frozen, so that a worker's collections write to none of its pages.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rankd_service.workers.worker import main as serve

__all__ = ["main"]

_ORDER_BYTES = 1024
_DESCRIPTORS = 3
_STANDARD = range(3)
# A signal to the whole group is for the workers; the nursery ends with its line.
_NOT_MINE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str]) -> int:
    """Fork workers until the line, the descriptor that is given, ends -> exit code, of a worker too."""
    line = socket.socket(fileno=int(arguments[0]))
    _call("rankd-nursery")
    before = {sign: signal.signal(sign, signal.SIG_IGN) for sign in _NOT_MINE}
    gc.collect()
    gc.freeze()
    with selectors.DefaultSelector() as watched:
        watched.register(line, selectors.EVENT_READ)
        while True:
            for key, _ in watched.select():
                if key.fileobj is not line:
                    watched.unregister(key.fileobj)
                    _bury(line, key.data, key.fd)
                    continue
                order, descriptors, _, _ = socket.recv_fds(line, _ORDER_BYTES, _DESCRIPTORS)
                if not order:
                    return 0
                number = json.loads(order)["worker"]
                pid = os.fork()
                if not pid:
                    watched.close()
                    line.close()
                    for sign, handler in before.items():
                        signal.signal(sign, handler)
                    return _serve(number, descriptors)
                for descriptor in descriptors:
                    os.close(descriptor)
                handle = os.pidfd_open(pid)
                watched.register(handle, selectors.EVENT_READ, pid)
                socket.send_fds(line, [json.dumps({"worker": number, "pid": pid}).encode()], [handle])


def _bury(line: socket.socket, pid: int, handle: int) -> None:
    _, status = os.waitpid(pid, 0)
    os.close(handle)
    with suppress(OSError):  # the supervisor is gone; so will we be, as soon as the line is read
        line.send(json.dumps({"pid": pid, "code": os.waitstatus_to_exitcode(status)}).encode())


def _serve(number: int, descriptors: Sequence[int]) -> int:
    """Be a worker -> its exit code."""
    os.setpgid(0, 0)
    for descriptor in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if descriptor not in _STANDARD and descriptor not in descriptors:
            with suppress(OSError):  # what the folder was listed with
                os.close(descriptor)
    _call(f"rankd-worker-{number}")
    return serve([str(descriptor) for descriptor in descriptors])


def _call(name: str) -> None:
    """Give this process a name, for `ps -o comm` and `top`."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name, encoding="utf-8")
