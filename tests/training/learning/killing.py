"""Kills a training of several processes in the middle, the way a machine that goes down does."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path


def kill_in_the_second_epoch(folder: Path, command: Sequence[str], output: str) -> None:
    """Start a training by `torchrun` in a folder, and kill it once a state of its second epoch is kept."""
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    place, deadline = folder / f".{output}.unfinished", time.monotonic() + 200
    while not list(place.glob("state-00002-*")):
        assert process.poll() is None, "the run was over before it could be killed"
        assert time.monotonic() < deadline
        os.sched_yield()
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
    for pid in (process.pid, *map(int, workers)):  # the launcher first, lest it starts others
        os.kill(pid, signal.SIGKILL)
    process.wait()
