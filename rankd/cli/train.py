"""`rankd train`: examples and a schema in, a run with weights, metrics and a record out."""

from __future__ import annotations

from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankd.cli.chosen import (
    SCHEMA_FILE,
    SetPairs,
    SettingsFile,
    check_there,
    merged,
    settings_files,
    settings_of,
)
from rankd.cli.data import Root
from rankd.cli.names import ARCHITECTURES, check_architecture
from rankd.cli.report import REPORT, write_report
from rankd.cli.runs import export_command, remember
from rankd.cli.screen import HOME, Home, JsonFlag, download_bar, fail, out, print_json, tell, wants
from rankd.cli.training import go_on, logged, run_training, say, tracked_at

if TYPE_CHECKING:
    from rankd_training.recipes.ctr import RunResult

__all__ = ["train"]


def train(
    model: Annotated[str, typer.Option(help=f"What to train: {', '.join(ARCHITECTURES)}.")] = "mlcc",
    data: Annotated[str | None, typer.Option(help="Named data set (`rankd data list`).")] = None,
    examples: Annotated[
        Path | None, typer.Option(help="Or your own examples: a Parquet or libsvm file, or a folder of them.")
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(
            help="Schema file of your examples, default: schema.yaml in their folder; or another one for a "
            "named data set."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Deal out train, valid and test rows, such as 80/10/10; default: their column `split`, "
            "or the names of the files, or else 80/10/10."
        ),
    ] = None,
    split_time: Annotated[
        str | None, typer.Option(help="Column of times: the latest rows are tested on.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the run; default: a new one in HOME/runs.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data at most.", min=1)] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Number that weights, order of rows and dropout are drawn from; the same gives the same run."
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with a run that was killed: the folder it was to leave.")
    ] = None,
    ray: Annotated[int | None, typer.Option(help="Workers on an existing Ray cluster.", min=1)] = None,
    shard_tables: Annotated[
        bool,
        typer.Option(
            "--shard-tables",
            help="Spread tables of ids over the processes of `torchrun` or --ray; needs TorchRec.",
        ),
    ] = False,
    settings: SettingsFile = None,
    set_: SetPairs = None,
    with_report: Annotated[
        bool, typer.Option("--report", help="Also write the run's report.html, as `rankd report` does.")
    ] = False,
    mlflow: Annotated[
        str | None,
        typer.Option(help="Log the run to MLflow at this address, such as sqlite:///mlflow.db or http://..."),
    ] = None,
    mlflow_experiment: Annotated[str, typer.Option(help="The experiment it is logged in.")] = "rankd",
    home: Home = HOME,
    root: Root = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a model; prints how good it is on each split and where the run lies.

    optinter first searches which pairs of fields to memorise, in a run of its own beside the other, and
    leaves the schema with these as crosses, for any model.
    """
    if resume is not None:
        told = (data, examples, schema, output, epochs, seed, split, split_time, ray, settings, set_)
        if any(told) or shard_tables:
            fail("--resume goes on with what the run was told; give it alone", 2)
        tracked = tracked_at(mlflow, mlflow_experiment, resume)
        _leave(logged(tracked, go_on(resume, tracked)), home, as_json)
        return
    check_architecture(model)
    if examples is not None and schema is None and (examples / SCHEMA_FILE).is_file():
        schema = examples / SCHEMA_FILE
    if (data is None) == (examples is None) or (examples is not None and schema is None):
        hint = "`rankd schema infer FILE` proposes a schema"
        fail(f"give --data NAME, or --examples FILE together with --schema FILE; {hint}", 2)
    given = {"epochs": epochs, "seed": seed, "split": split, "split_time": split_time}
    given |= {"embedding_sharding": "row_wise"} if shard_tables else {}
    chosen = _from_files(model, settings or [])
    chosen |= {key: value for key, value in given.items() if value is not None}
    chosen = merged(chosen, settings_of(set_ or []))
    if data is not None:
        from rankd_training.data import catalog
        from rankd_training.errors import DataError

        with wants(DataError), download_bar() as progress:
            folder = catalog.get(data, root=root, progress=progress)
        examples, schema = folder / "examples.parquet", schema or schema_of(data)
    assert examples is not None
    assert schema is not None
    check_there(examples, schema)
    output = output or free_folder(home / "runs", model)
    tracked = tracked_at(mlflow, mlflow_experiment, output)
    result = run_training(examples, schema, model, output, data=data, chosen=chosen, ray=ray, tracked=tracked)
    if with_report:
        write_report(output, examples, output / REPORT)
    _leave(logged(tracked, result), home, as_json)


def _leave(result: RunResult, home: Path, as_json: bool) -> None:
    """Say where the run lies, and what to do with it."""
    remember(home / "runs", result.folder)
    if as_json:
        metrics = {split: {task: asdict(m) for task, m in by.items()} for split, by in result.metrics.items()}
        print_json({"run": str(result.folder), "metrics": metrics, "warnings": result.record.warnings})
        return
    out.print(str(result.folder), soft_wrap=True)
    tell.print(f"next: {export_command(result.folder, home)}", soft_wrap=True, markup=False)
    _say_pairs(result.folder)


def _say_pairs(run: Path) -> None:
    """Say what a search has left in a run's folder."""
    from rankd_training.recipes.chosen_pairs import CROSSED_SCHEMA, PAIRS
    from rankd_training.runs.checkpoint import SCHEMA

    if not (run / PAIRS).is_file():
        return
    say(f"what each pair of fields is for: {run / PAIRS}")
    if (run / CROSSED_SCHEMA).read_bytes() == (run / SCHEMA).read_bytes():
        say("none is memorised for sure, so the schema gets no cross")
    else:
        say(f"with the surely memorised as crosses, any model trains on --schema {run / CROSSED_SCHEMA}")


def schema_of(data: str) -> Path:
    """Return the schema file that comes with a named data set."""
    from rankd_training.data import catalog

    return catalog.describe(data).schema


def free_folder(parent: Path, name: str) -> Path:
    """Return `parent/name`, or the first of `name-2`, `name-3`, ... where no run is, finished or not."""
    from rankd_training.runs.unfinished import Unfinished

    places = (parent / (name if n == 1 else f"{name}-{n}") for n in count(1))
    return next(place for place in places if not (place.exists() or Unfinished(place).folder.exists()))


def _from_files(model: str, paths: list[Path]) -> dict[str, Any]:
    """Take the model's settings from files; a file that has none for it is a mistake."""
    chosen: dict[str, Any] = {}
    for path, by_model in settings_files(paths):
        if model not in by_model:
            fail(f"--settings {path}: has settings for {', '.join(by_model)}, not for {model}", 2)
        chosen = merged(chosen, by_model[model])
    return chosen
