"""One bar for many trainings: which trial it is, how far it is, and one line for each that is done."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["TrialBar"]


class TrialBar:
    """Hears trials and, as a `Progress`, the training inside each. Use as a context manager."""

    def __init__(self, console: Console, total: int) -> None:
        """`total` trials are expected."""
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[inside]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_interactive,  # it would leave an empty line in a file
        )
        self._task = self._bar.add_task("", total=total, inside="")
        self._epochs = self._steps = 0
        self._place = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, title: str) -> None:
        """Name the trial under way."""
        self._bar.update(self._task, description=title, inside="")

    def end(self, line: str = "") -> None:
        """Count a trial as done, and leave a line behind if there is one."""
        self._bar.update(self._task, advance=1, inside="")
        if self._bar.finished:
            self._bar.update(self._task, description="putting the results together")
        if line:
            self._bar.console.print(line, highlight=False)

    def rows_read(self, done: int, total: int) -> None:
        """Show how far the reading is."""
        self._bar.update(self._task, inside=f"reading, {100 * done // total} %")

    def run_started(
        self, *, model: str, parameters: int, stop_on: str, epochs: int, steps_per_epoch: int
    ) -> None:
        """Hear how long the training will be at most."""
        self._epochs, self._steps = epochs, steps_per_epoch

    def epoch_started(self, epoch: int) -> None:
        """Show the epoch."""
        self._place = f"epoch {epoch}/{self._epochs}"
        self._bar.update(self._task, inside=self._place)

    def step(self, step: int, loss: float, rows_per_s: float) -> None:
        """Show how far the epoch is."""
        share = f"{100 * step // self._steps} %"
        self._bar.update(self._task, inside=f"{self._place}, {share}, {rows_per_s:,.0f} rows/s")

    def epoch_ended(
        self, epoch: int, loss: float, valid_auc: Mapping[str, float], *, score: float, best: bool
    ) -> None:
        """Say nothing: many trainings would be many lines."""
