"""Runs in HOME/runs: which is the newest, so that nobody exports yesterday's by its shorter name."""

from __future__ import annotations

import os
import secrets
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from rankd.cli.screen import HOME, fail, tell

__all__ = ["RunFolder", "export_command", "remember", "run_or_newest"]

RunFolder = Annotated[
    Path | None, typer.Argument(help="Folder of a training run; default: the one that ended last.")
]

_LATEST = "latest"
_RECORD = "run.json"


def remember(runs: Path, run: Path) -> None:
    """Let `latest` in the folder of runs point to a run that has just ended."""
    fresh = runs / f".{_LATEST}.{secrets.token_hex(4)}"
    inside = run.resolve().is_relative_to(runs.resolve())
    target = os.path.relpath(run.resolve(), runs.resolve()) if inside else run.resolve()
    try:
        runs.mkdir(parents=True, exist_ok=True)
        fresh.symlink_to(target)
        fresh.replace(runs / _LATEST)
    except OSError as error:  # the run itself is safe
        with suppress(OSError):
            fresh.unlink()
        tell.print(f"[yellow]{runs / _LATEST} could not be set[/]: {error.strerror}", soft_wrap=True)


def run_or_newest(run: Path | None, home: Path) -> Path:
    """Return the run that was named, or else the one that ended last, and say so; leaves where none is."""
    if run is None:
        run = _newest(home / "runs")
        tell.print(f"the newest run, {run}", soft_wrap=True, markup=False)
    return run


def _newest(runs: Path) -> Path:
    """The run that `latest` points to, or else the one that ended last."""
    latest = runs / _LATEST
    if latest.is_symlink() and (latest / _RECORD).is_file():
        return runs / latest.readlink()
    ended = {p.parent: p.stat().st_mtime_ns for p in runs.glob(f"*/{_RECORD}")}
    if not ended:
        fail(f"{runs} holds no run; train one with `rankd train`, or name the folder of one")
    return max(ended, key=lambda run: ended[run])


def export_command(run: Path, home: Path) -> str:
    """Return the command that exports a run, to be typed as it is."""
    place = [] if home == HOME else ["--home", str(home)]
    return shlex.join(["rankd", "export", str(run), *place])
