"""Has workers made by a process that has loaded what they need, and replaces that process where it fails.

The workers are this process's own children all the same, and no matter of the nursery's once they are born.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rankd_service.workers.adopted import Adopted
from rankd_service.workers.place import Started

__all__ = ["Nursery"]

# With the import path of this process, whatever made it, and none of the working folder's own. numpy's BLAS
# would start threads for products that no worker computes.
_BOOT = """
import json, os, sys
os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path[:] = json.loads(sys.argv[1])
from rankd_service.workers.nursery_process import main
sys.exit(main(sys.argv[2:3]))
"""
_LONGEST_ANSWER = 4096
_FIRST_S, _FURTHER_S = 60.0, 5.0  # imports on a slow disk; two forks on a busy machine
_END_S = 1.0
_SET_CHILD_SUBREAPER = 36
_log = logging.getLogger(__name__)


class Nursery:
    """The supervisor's end. The process is started with the first birth."""

    def __init__(self, listener: socket.socket, page: int) -> None:
        """Start nothing yet; a worker gets the socket and the page."""
        self._listener, self._page = listener, page
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._one_by_one = asyncio.Lock()
        self._patience_s = _FIRST_S
        self._stopped = False

    async def birth(self, number: int) -> Started:
        """Start the process of a worker. Raises OSError, and then the next birth has a new nursery."""
        async with self._one_by_one:
            if self._stopped:
                raise OSError("the service ends")
            ours, theirs = socket.socketpair()
            try:
                with theirs:
                    pid = await self._order(number, [theirs.fileno(), self._listener.fileno(), self._page])
            except BaseException:
                ours.close()  # where there is a worker after all, it ends with its line
                raise
            return Started(Adopted(pid), ours)

    def stop(self) -> None:
        """Have nobody born any more; a birth that is under way fails."""
        self._stopped = True
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """Stop, and leave nothing open."""
        self.stop()
        self._leave()

    async def _order(self, number: int, descriptors: list[int]) -> int:
        line = self._line if self._line is not None else self._open()
        try:
            with _adopting():
                socket.send_fds(line, [str(number).encode()], descriptors)
                async with asyncio.timeout(self._patience_s):
                    said = await asyncio.get_running_loop().sock_recv(line, _LONGEST_ANSWER)
        except TimeoutError:
            self._leave()
            raise OSError(f"the nursery did not answer within {self._patience_s:.0f} s") from None
        except BaseException:
            self._leave()
            raise
        if not said:
            raise OSError(f"the nursery ended with exit code {self._leave()}; the log above may say why")
        answer = json.loads(said)
        if self._patience_s == _FIRST_S and answer.get("threads"):
            _log.warning(
                "workers share no memory and start slowly: several threads run where they would be forked, "
                "and a fork takes one along; find what starts them (an agent, a sitecustomize, numpy's BLAS)",
                extra={"threads": answer["threads"]},
            )
        self._patience_s = _FURTHER_S
        if "errno" in answer:
            raise OSError(answer["errno"], f"the nursery cannot fork: {os.strerror(answer['errno'])}")
        return int(answer["pid"])

    def _open(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        arguments = [json.dumps(sys.path), str(theirs.fileno())]
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _BOOT, *arguments],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    process_group=0,  # Ctrl-C is for the supervisor
                )
            except OSError:
                ours.close()
                raise
        self._line, self._patience_s = ours, _FIRST_S
        return ours

    def _leave(self) -> int | None:
        """End the process, if there is one -> its exit code, where it had ended or does so at once."""
        process, line, self._process, self._line = self._process, self._line, None, None
        if line is not None:
            line.close()
        if process is None:
            return None
        code = process.poll()
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        return code if code is not None else process.returncode


@contextmanager
def _adopting() -> Iterator[None]:
    """Be the parent of every descendant that loses its own meanwhile."""
    _adopt(True)
    try:
        yield
    finally:
        _adopt(False)


def _adopt(whether: bool) -> None:
    system = ctypes.CDLL(None, use_errno=True)
    if system.prctl(_SET_CHILD_SUBREAPER, int(whether), 0, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, f"cannot adopt workers: {os.strerror(code)}")
