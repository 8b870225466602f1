"""A training that somebody watches: progress on the screen, its warnings, and MLflow where asked to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from rankd.cli.chosen import merged
from rankd.cli.screen import STOPPED, fail, tell, wants
from rankd_contract.errors import ContractError

if TYPE_CHECKING:
    from rankd.tracking import MlflowRun
    from rankd_training.progress import Progress
    from rankd_training.recipes.ctr import RunResult

__all__ = ["go_on", "logged", "run_training", "say", "tracked_at"]


def go_on(output: Path, tracked: MlflowRun | None = None) -> RunResult:
    """Resume the run that was to leave `output`, with progress on the screen."""
    with wants():
        from rankd_training.recipes import optinter
    return _watched(lambda progress: optinter.resume(output, progress=progress, say=say), output, tracked)


def tracked_at(address: str | None, experiment: str, output: Path) -> MlflowRun | None:
    """Reach MLflow, before anything is trained."""
    if address is None:
        return None
    from rankd.tracking import MlflowRun, TrackingFailed

    with wants(TrackingFailed):
        return MlflowRun(address, experiment, output.name, say)


def logged(tracked: MlflowRun | None, result: RunResult) -> RunResult:
    """Tell MLflow of a finished run, where it is told."""
    if tracked is not None:
        tracked.finished(result)
    return result


def run_training(
    examples: Path,
    schema: Path,
    model: str,
    output: Path,
    *,
    data: str | None = None,
    chosen: dict[str, Any] | None = None,
    ray: int | None = None,
    tracked: MlflowRun | None = None,
) -> RunResult:
    """Train with progress on the screen, or with `ray` workers of a cluster.

    `data` names the data set whose tried settings are taken; `tracked` hears the run too.
    """
    with wants():
        from rankd_training.config import read_config
        from rankd_training.models.registry import setting_names
        from rankd_training.presets import preset
        from rankd_training.recipes import ctr, optinter
        from rankd_training.settings import TrainSettings
    settings = merged(preset(data, model), chosen or {})
    places = {"examples": examples, "schema": schema, "output": output, "model": model}

    def work(progress: Progress) -> RunResult:
        told = read_config(TrainSettings, {**settings, **places}, elsewhere=setting_names(model))
        if optinter.searches(told):
            if ray is not None:
                fail(
                    "--ray trains one run, and optinter without model.methods is two; search without --ray", 2
                )
            return optinter.search_and_train(told, progress=progress, say=say)[1]
        if ray is None:
            return ctr.train(told, progress=progress)
        from rankd_training.recipes.on_ray import train_on_ray

        return train_on_ray(told, workers=ray)

    return _watched(work, output, tracked)


def _watched(
    work: Callable[[Progress], RunResult], output: Path, tracked: MlflowRun | None = None
) -> RunResult:
    """Work with progress on the screen and the metrics after it; Ctrl-C says how to go on."""
    from rankd_training.errors import SettingError, TrainingError
    from rankd_training.progress import RichProgress, Together
    from rankd_training.recipes.report import render_metrics

    with wants(TrainingError, ContractError), _failing(tracked):
        try:
            with RichProgress(tell) as progress:
                result = work(progress if tracked is None else Together(progress, tracked))
        except SettingError as error:
            fail(str(error), 2)
        except KeyboardInterrupt:
            fail(f"stopped; go on with: rankd train --resume {output}", STOPPED)
    tell.print(f"rows split by {result.record.split_by}", soft_wrap=True)
    tell.print(render_metrics(result))
    _say_calibration(result.folder)
    for warning in result.record.warnings:
        tell.print(f"[bold yellow]warning[/]: {escape(warning)}", soft_wrap=True)
    return result


@contextmanager
def _failing(tracked: MlflowRun | None) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if tracked is not None:
            tracked.failed()
        raise


def _say_calibration(run: Path) -> None:
    """Say what the curves of a calibrated run do; the table is of scores as they leave the model."""
    from rankd_training.measures.calibration import FILE

    if not (run / FILE).exists():
        return
    fitted = json.loads((run / FILE).read_text(encoding="utf-8"))
    for task, before in fitted["error_before"]["test"].items():
        after = fitted["error_after"]["test"][task]
        tell.print(
            f"{task}: calibrated where it is served ({fitted['method']}): ECE on test {before:.4f} in the "
            f"table, {after:.4f} calibrated",
            soft_wrap=True,
            highlight=False,
        )


def say(line: str) -> None:
    """Say a line beside the bar."""
    tell.print(line, soft_wrap=True, markup=False)
