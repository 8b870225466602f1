"""How do connections fall to workers: a queue each (SO_REUSEPORT), one queue, or one queue with our Acceptor?

    python bench/accepting.py

Two processes answer one byte, their number, to whoever connects. Prints the larger share of 16 connections
(8 is even), opened at once and one after the other, and how many of 40 are answered within 0.3 s while one
of the two processes is stopped.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from rankd_service.workers.acceptor import Acceptor
from rankd_service.workers.board import Board, Standing

WAYS = ("SO_REUSEPORT", "one socket, uvloop", "one socket, Acceptor")
CONNECTIONS, TRIALS, ASKED, PATIENCE_S = 16, 15, 40, 0.3


class Number(asyncio.Protocol):
    """Says which process it is in."""

    def __init__(self, number: int, open_now: set[object]) -> None:
        """Know the number and the connections."""
        self._number, self._open = number, open_now

    def connection_made(self, transport: Any) -> None:
        """Answer at once."""
        self._open.add(self)
        transport.write(bytes([self._number]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it no more."""
        self._open.discard(self)


async def serve(way: str, number: int, listener: socket.socket, board: Board) -> None:
    """Answer for ever."""
    loop, open_now = asyncio.get_running_loop(), set[object]()
    if way == WAYS[2]:
        acceptor = Acceptor(listener, board, number, lambda: Number(number, open_now), lambda: len(open_now))
        acceptor.open(loop)
    else:
        await loop.create_server(lambda: Number(number, open_now), sock=listener)
    while True:
        board.seats[number].report(Standing.READY, len(open_now))
        await asyncio.sleep(0.1)


@contextmanager
def two_processes(way: str) -> Iterator[tuple[int, list[int]]]:
    """Start them -> the port and their ids."""
    page = Board.file(2)
    listeners = [socket.socket() for _ in range(2 if way == WAYS[0] else 1)]
    port = 0
    for one in listeners:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(("127.0.0.1", port))
        one.listen(512)
        one.setblocking(False)
        port = one.getsockname()[1]
    pids = []
    for number in range(2):
        pid = os.fork()
        if pid == 0:
            for other in listeners:
                if other is not listeners[number % len(listeners)]:
                    other.close()
            with suppress(BaseException):
                uvloop.run(serve(way, number, listeners[number % len(listeners)], Board(page, 2)))
            os._exit(0)
        pids.append(pid)
    for one in listeners:
        one.close()
    time.sleep(0.5)
    try:
        yield port, pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def shares_at_once(port: int) -> int:
    """Open connections without waiting for any -> how many the fuller process got."""
    opened = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
    zeros = sum(one.recv(1) == b"\0" for one in opened)
    for one in opened:
        one.close()
    return max(zeros, CONNECTIONS - zeros)


def shares_in_turn(port: int) -> int:
    """Open connections one after the other -> how many the fuller process got."""
    opened, zeros = [], 0
    for _ in range(CONNECTIONS):
        one = socket.create_connection(("127.0.0.1", port))
        zeros += one.recv(1) == b"\0"
        opened.append(one)
    for one in opened:
        one.close()
    return max(zeros, CONNECTIONS - zeros)


def answered_beside_a_stopped_one(port: int, pid: int) -> int:
    """Stop one process and connect -> how many were answered in time."""
    os.kill(pid, signal.SIGSTOP)
    opened = [socket.create_connection(("127.0.0.1", port)) for _ in range(ASKED)]
    give_up, waiting = time.monotonic() + PATIENCE_S, set(opened)
    while waiting and (left_s := give_up - time.monotonic()) > 0:
        waiting -= set(select.select(list(waiting), [], [], left_s)[0])
    os.kill(pid, signal.SIGCONT)
    for one in opened:
        one.close()
    return ASKED - len(waiting)


def main() -> None:
    """Measure each way and print."""
    grid = Table(
        "way", "at once: median, worst", "in turn: median, worst", f"answered of {ASKED}, one stopped"
    )
    for way in WAYS:
        with two_processes(way) as (port, pids):
            bursts, turns = [], []
            for _ in range(TRIALS):
                bursts.append(shares_at_once(port))
                time.sleep(0.25)
                turns.append(shares_in_turn(port))
                time.sleep(0.25)
            cells = [f"{statistics.median(s):g}, {max(s)}" for s in (bursts, turns)]
            grid.add_row(way, *cells, str(answered_beside_a_stopped_one(port, pids[0])))
    Console().print(grid)


if __name__ == "__main__":
    main()
