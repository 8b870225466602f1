"""What a recipe says while it works, and listeners: a silent one, one for a terminal, several at once."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichBar

__all__ = ["SILENT", "Progress", "RichProgress", "Together"]


class Progress(Protocol):
    """Hears a run as it goes. Epochs and steps count from 1."""

    def rows_read(self, done: int, total: int) -> None:
        """So many rows of the examples are read and encoded."""

    def run_started(
        self, *, model: str, parameters: int, stop_on: str, epochs: int, steps_per_epoch: int
    ) -> None:
        """The model is built; at most `epochs` times `steps_per_epoch` steps follow.

        `stop_on` is the setting: what makes an epoch better than another.
        """

    def epoch_started(self, epoch: int) -> None:
        """An epoch begins."""

    def step(self, step: int, loss: float, rows_per_s: float) -> None:
        """A step of this epoch is done; speed is the epoch's mean so far."""

    def epoch_ended(
        self, epoch: int, loss: float, valid_auc: Mapping[str, float], *, score: float, best: bool
    ) -> None:
        """Mean training loss, validation AUC by task, what `stop_on` asks for, whether it is the best."""


class _Silent:
    """Hears nothing."""

    def rows_read(self, done: int, total: int) -> None:
        """Say nothing."""

    def run_started(
        self, *, model: str, parameters: int, stop_on: str, epochs: int, steps_per_epoch: int
    ) -> None:
        """Say nothing."""

    def epoch_started(self, epoch: int) -> None:
        """Say nothing."""

    def step(self, step: int, loss: float, rows_per_s: float) -> None:
        """Say nothing."""

    def epoch_ended(
        self, epoch: int, loss: float, valid_auc: Mapping[str, float], *, score: float, best: bool
    ) -> None:
        """Say nothing."""


SILENT: Progress = _Silent()


class Together:
    """Several listeners as one; each hears everything, in their order."""

    def __init__(self, *listeners: Progress) -> None:
        self._listeners = listeners

    def rows_read(self, done: int, total: int) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.rows_read(done, total)

    def run_started(
        self, *, model: str, parameters: int, stop_on: str, epochs: int, steps_per_epoch: int
    ) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.run_started(
                model=model,
                parameters=parameters,
                stop_on=stop_on,
                epochs=epochs,
                steps_per_epoch=steps_per_epoch,
            )

    def epoch_started(self, epoch: int) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.epoch_started(epoch)

    def step(self, step: int, loss: float, rows_per_s: float) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.step(step, loss, rows_per_s)

    def epoch_ended(
        self, epoch: int, loss: float, valid_auc: Mapping[str, float], *, score: float, best: bool
    ) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.epoch_ended(epoch, loss, valid_auc, score=score, best=best)


class RichProgress:
    """A bar with loss, speed and remaining time, and one line an epoch. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = RichBar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TextColumn("{task.fields[speed]:,.0f} rows/s"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_interactive,  # it would leave an empty line in a file
        )
        self._task = self._bar.add_task("", loss=0.0, speed=0.0, visible=False)
        self._epochs, self._stop_on = 0, "auc"

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def rows_read(self, done: int, total: int) -> None:
        """Show how far the reading is."""
        self._bar.update(self._task, description="reading", completed=done, total=total, visible=True)

    def run_started(
        self, *, model: str, parameters: int, stop_on: str, epochs: int, steps_per_epoch: int
    ) -> None:
        """Show the bar."""
        self._epochs, self._stop_on = epochs, stop_on
        stops = f", stopping by validation {stop_on.replace('_', ' ')}" if stop_on != "auc" else ""
        self._console.print(f"training {model}: {parameters:,} parameters, at most {epochs} epochs{stops}")
        self._bar.reset(self._task, total=epochs * steps_per_epoch, visible=True)  # may be the second run

    def epoch_started(self, epoch: int) -> None:
        """Name the epoch."""
        self._bar.update(self._task, description=f"epoch {epoch}/{self._epochs}")

    def step(self, step: int, loss: float, rows_per_s: float) -> None:
        """Move on by one step."""
        self._bar.update(self._task, advance=1, loss=loss, speed=rows_per_s)

    def epoch_ended(
        self, epoch: int, loss: float, valid_auc: Mapping[str, float], *, score: float, best: bool
    ) -> None:
        """Leave one line behind."""
        aucs = "  ".join(f"{task} {auc:.4f}" for task, auc in valid_auc.items())
        if self._stop_on != "auc":
            aucs += f", {self._stop_on.replace('_', ' ')} {score:.4f}"
        self._console.print(
            f"epoch {epoch}: loss {loss:.4f}, validation AUC {aucs}{'  (best so far)' if best else ''}",
            soft_wrap=True,
        )
