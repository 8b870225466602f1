"""Have something to oneself: processes that would write the same files take turns, or are told."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rankd_training.errors import RunError

__all__ = ["held"]


@contextmanager
def held(lock: Path, what: str, *, waits: bool = False) -> Iterator[None]:
    """Hold a lock file, which is made where there is none, until the block or the process ends.

    Args:
        lock: the file; what is in it stays.
        what: it stands for, such as "this run".
        waits: for whoever has it.

    Raises:
        RunError: another process has it, and we do not wait.
    """
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except OSError as error:
            problem = f"another process is at {what}; wait for it, or end it first"
            raise RunError(lock.parent, problem) from error
        yield
