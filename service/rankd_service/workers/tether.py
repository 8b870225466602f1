"""A worker's end of its line to the supervisor: one JSON object a line, both ways, over an inherited socket.

A thread of its own reads and answers, so that metrics are told while the event loop is busy, and so that the
end of the supervisor is noticed, whatever ended it: then nobody would replace this worker or stop it.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from typing import Any

__all__ = ["Tether"]

Families = list[dict[str, Any]]
_FAILED = 1
_log = logging.getLogger(__name__)


class Tether:
    """The line. Orders come with the first message."""

    def __init__(self, line: socket.socket) -> None:
        """Wait for the orders. Raises EOFError where there is nobody to give any."""
        self._line, self._incoming = line, line.makefile("rb")
        self._sending, self._asked = threading.Lock(), threading.Lock()
        self._questions, self._waiting = count(1), dict[int, Future[Families]]()
        first = self._incoming.readline()
        if not first:
            raise EOFError("the supervisor ended")
        self.orders: dict[str, Any] = json.loads(first)

    def send(self, message: dict[str, Any]) -> None:
        """Tell the supervisor something; nothing where it is gone."""
        try:
            with self._sending:
                self._line.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass

    def totals(self) -> Future[Families]:
        """Ask for the metrics of all workers. May block while the line is busy: call it beside the loop."""
        answer: Future[Families] = Future()
        with self._asked:
            question = next(self._questions)
            self._waiting[question] = answer
        self.send({"ask": question})
        return answer

    def follow(
        self,
        counts: Callable[[], Families],
        drain: Callable[[float], None],
        abandon: Callable[[], None],
        patience_s: float,
    ) -> None:
        """Follow the supervisor from now on: `drain` and `abandon` are called in the reading thread.

        Where the supervisor ends, drain at once; a worker that has not ended after `patience_s` is ended.
        """
        threading.Thread(
            target=self._follow, args=(counts, drain, abandon, patience_s), name="rankd-tether", daemon=True
        ).start()

    def _follow(
        self,
        counts: Callable[[], Families],
        drain: Callable[[float], None],
        abandon: Callable[[], None],
        patience_s: float,
    ) -> None:
        for line in self._lines():
            message = json.loads(line)
            if "count" in message:
                self._count(counts)
            elif "drain" in message:
                drain(message["drain"])
            elif "abandon" in message:
                abandon()
            elif "totals" in message:
                with self._asked:
                    answer = self._waiting.pop(message["ask"], None)
                if answer is not None:
                    answer.set_result(message["totals"])
        drain(0.0)
        threading.Event().wait(patience_s)
        os._exit(_FAILED)  # the loop hangs, and nobody else is left to notice

    def _count(self, counts: Callable[[], Families]) -> None:
        """Tell metrics; where they cannot be read, this scrape goes with what was told last."""
        try:
            self.send({"counts": counts()})
        except Exception:  # this thread has more to do than that
            _log.exception("metrics cannot be read")

    def _lines(self) -> Any:
        try:
            yield from self._incoming
        except OSError:
            return
