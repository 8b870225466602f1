"""A training run as MLflow keeps one: settings, losses and metrics epoch by epoch, records as files.

A listener of the recipe. That the tracking server can be reached is known before anything is trained; what it
does not take later is said once and never ends a training: everything is logged again from the finished run.
`mlflow.json` in the run's folder says where it was logged, for the export that follows.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from rankd_contract.bundle import Bundle
    from rankd_training.recipes.ctr import RunResult

__all__ = ["TRACKED", "MlflowRun", "TrackingFailed", "log_bundle", "logged_at"]

TRACKED = "mlflow.json"
_MOST_PARAMS = 100  # of one request
_FILES = ("run.json", "metrics.json", "schema.yaml", "calibration.json", "report.html")

Say = Callable[[str], None]


class TrackingFailed(Exception):
    """MLflow cannot be reached or does not take what it is given."""


class MlflowRun:
    """Hears a training run and logs it. Raises TrackingFailed where the server cannot be reached at first."""

    def __init__(self, address: str, experiment: str, name: str, say: Say) -> None:
        """Find the experiment, or make it; nothing is logged yet."""
        self._address, self._name, self._say = address, name, say
        self._client = _client(address)
        self._run, self._logged, self._complained = "", set[int](), False
        try:
            found = self._client.get_experiment_by_name(experiment)
            self._experiment = found.experiment_id if found else self._client.create_experiment(experiment)
        except Exception as error:  # MLflow's own errors and those of every store have no base in common
            raise TrackingFailed(_words(address, error)) from error

    def rows_read(self, done: int, total: int) -> None:
        """Log nothing."""

    def run_started(
        self, *, model: str, parameters: int, stop_on: str, epochs: int, steps_per_epoch: int
    ) -> None:
        """Begin a run; a second one of the same command is a run of its own."""
        self._end("FINISHED")
        tags = {"rankd.model": model, "rankd.parameters": str(parameters)}
        self._try(lambda: self._begin(tags))

    def epoch_started(self, epoch: int) -> None:
        """Log nothing."""

    def step(self, step: int, loss: float, rows_per_s: float) -> None:
        """Log nothing: a request a step would be what takes the time."""

    def epoch_ended(
        self, epoch: int, loss: float, valid_auc: Mapping[str, float], *, score: float, best: bool
    ) -> None:
        """Log the epoch."""
        metrics = {"train/loss": loss, **{f"valid/auc/{task}": auc for task, auc in valid_auc.items()}}
        if self._try(lambda: self._metrics(metrics, epoch)):
            self._logged.add(epoch)

    def finished(self, result: RunResult) -> None:
        """Log the rest: settings, whatever epochs are not there yet, metrics by split and task, files."""
        if self._try(lambda: self._rest(result)):
            said = {"tracking": _without_password(self._address), "run": self._run}
            (result.folder / TRACKED).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
        self._end("FINISHED")

    def failed(self) -> None:
        """Say that there will be no more."""
        self._end("FAILED")

    def _begin(self, tags: dict[str, str]) -> None:
        self._logged = set()
        self._run = self._client.create_run(self._experiment, run_name=self._name, tags=tags).info.run_id

    def _rest(self, result: RunResult) -> None:
        record = result.record
        if not self._run:  # trained elsewhere, or MLflow was away when it began
            self._begin({"rankd.model": record.model, "rankd.parameters": str(record.parameters)})
        for epoch in record.epochs:
            late = {} if epoch.epoch in self._logged else {"train/loss": epoch.loss}
            late |= {} if epoch.epoch in self._logged else _by_task("valid/auc", epoch.valid_auc)
            more = _by_task("valid/log_loss", epoch.valid_log_loss)
            more |= _by_task("valid/user_auc", epoch.valid_user_auc)
            self._metrics({**late, **more, "epoch_s": epoch.duration_s}, epoch.epoch)
        found = {
            f"{split}/{measure}/{task}": value
            for split, by_task in result.metrics.items()
            for task, metrics in by_task.items()
            for measure, value in asdict(metrics).items()
            if value is not None and measure != "rows"
        }
        self._metrics({f"best/{name}": value for name, value in found.items()}, record.best_epoch)
        self._params(dict(_flat(record.settings)))
        tags = {"examples_sha256": record.examples_sha256, "split_by": record.split_by, **record.versions}
        for name, value in tags.items():
            self._client.set_tag(self._run, f"rankd.{name}", value)
        for warning in record.warnings[:1]:
            self._client.set_tag(self._run, "rankd.warning", warning)
        for name in _FILES:
            if (result.folder / name).is_file():
                self._client.log_artifact(self._run, str(result.folder / name))

    def _metrics(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        at_ms = int(time.time() * 1000)  # noqa: TID251  # a date for people, not a duration
        self._client.log_batch(
            self._run, [Metric(name, value, at_ms, step) for name, value in metrics.items()]
        )

    def _params(self, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        all_params = [Param(name, value) for name, value in params.items()]
        for first in range(0, len(all_params), _MOST_PARAMS):
            self._client.log_batch(self._run, params=all_params[first : first + _MOST_PARAMS])

    def _end(self, status: str) -> None:
        if self._run:
            self._try(lambda: self._client.set_terminated(self._run, status))
        self._run = ""

    def _try(self, act: Callable[[], None]) -> bool:
        """Do what may fail for MLflow's reasons, which are no reason to stop training."""
        try:
            act()
        except Exception as error:  # as above
            if not self._complained:
                self._say(f"{_words(self._address, error)}; training goes on")
            self._complained = True
            return False
        return True


def logged_at(run: Path) -> Path | None:
    """Return the file that says where a run was logged; None where it was not."""
    path = run / TRACKED
    return path if path.is_file() else None


def log_bundle(run: Path, bundle: Bundle) -> str:
    """Add a bundle's files and digest to the MLflow run that its training run was logged as -> that run's id.

    Raises TrackingFailed.
    """
    try:
        said = json.loads((run / TRACKED).read_text(encoding="utf-8"))
        address, run_id = str(said["tracking"]), str(said["run"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrackingFailed(
            f"{run / TRACKED} does not say where the run was logged ({error}); train with --mlflow ADDRESS"
        ) from error
    manifest = bundle.manifest
    client = _client(address)
    try:
        client.log_artifacts(run_id, str(bundle.path), f"bundle/{manifest.version}")
        for name, value in (
            ("model", manifest.model),
            ("version", str(manifest.version)),
            ("digest", bundle.digest),
        ):
            client.set_tag(run_id, f"rankd.bundle.{name}", value)
    except Exception as error:  # as above
        raise TrackingFailed(_words(address, error)) from error
    return run_id


def _client(address: str) -> Any:
    # It sends events of its use to its makers unless told not to, and reads that when it is imported.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # noqa: TID251  # it can be said no other way
    from mlflow import MlflowClient

    try:
        return MlflowClient(tracking_uri=address)
    except Exception as error:  # as above
        raise TrackingFailed(_words(address, error)) from error


def _words(address: str, error: Exception) -> str:
    shown = _without_password(address)
    words = " ".join(str(error).replace(address, shown).split())[:500]
    return f"MLflow at {shown}: {type(error).__name__}: {words}"


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else address


def _by_task(name: str, values: Mapping[str, float | None]) -> dict[str, float]:
    return {f"{name}/{task}": value for task, value in values.items() if value is not None}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    items: Iterable[tuple[str, Any]] = tree.items()
    for name, value in items:
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)
