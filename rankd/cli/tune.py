"""`rankd tune`: a space of settings in, the best by validation rows out, as a file that training reads."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from rankd.cli.bars import TrialBar
from rankd.cli.chosen import (
    DataName,
    ExamplesFile,
    GroupColumn,
    SchemaFile,
    SettingsFile,
    SplitShares,
    SplitTime,
    given,
    seeds_of,
    settings_files,
    settings_for,
)
from rankd.cli.data import Root
from rankd.cli.screen import HOME, STOPPED, Home, JsonFlag, fail, out, print_json, spare, tell, wants
from rankd_contract.errors import ContractError

if TYPE_CHECKING:
    from rankd_training.trials.tuning import Tried

__all__ = ["tune"]

_MEASURES = ("auc", "user_auc", "log_loss")
_SHOWN = 5


def tune(
    model: Annotated[str, typer.Option(help="Whose settings to search: a model or a yardstick.")],
    space: Annotated[Path, typer.Option(help="YAML file of settings to search.")],
    data: DataName = None,
    examples: ExamplesFile = None,
    schema: SchemaFile = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, those of earlier runs included.")] = 50,
    measure: Annotated[str, typer.Option(help="What decides: auc, user_auc or log_loss.")] = "auc",
    seeds: Annotated[str, typer.Option(help="How many seeds a trial, such as 3, or which.")] = "1",
    settings: SettingsFile = None,
    output: Annotated[
        Path | None,
        typer.Option("--out", help="The settings file; default: best.yaml in the study's folder."),
    ] = None,
    group_column: GroupColumn = None,
    split: SplitShares = None,
    split_time: SplitTime = None,
    home: Home = HOME,
    root: Root = None,
    as_json: JsonFlag = False,
) -> None:
    """Search for settings on validation rows; test rows are not even in the file that trials read.

    The same command with more --trials goes on. A space file has lines such as
    `learning_rate: {log: [0.0001, 0.01]}`, `model.heads: {int: [1, 8]}`, `batch_size: {choice: [512, 2048]}`.
    """
    with wants():
        from rankd_training.errors import SettingError, TrainingError
        from rankd_training.settings_file import flat, write_settings_file
        from rankd_training.trials.search_space import read_space
        from rankd_training.trials.trial import check_names
        from rankd_training.trials.tuning import Study

    if measure not in _MEASURES:
        fail(f"--measure {measure}: expected one of {', '.join(_MEASURES)}", 2)
    try:
        check_names([model])
        searched = read_space(space, model)
    except SettingError as error:
        fail(str(error), 2)
    spare("--out", output, examples, schema, space, *(settings or []))
    chosen_seeds = seeds_of(seeds)
    reading = {"group_column": group_column, "split": split, "split_time": split_time}
    rows = given(data, examples, schema, root, reading)
    base, _ = settings_for(rows.data, model, settings_files(settings or []))
    with wants(TrainingError, ContractError):
        study = Study(
            home / "tune",
            rows.name,
            rows.source,
            model=model,
            space=searched,
            base=base,
            measure=measure,  # type: ignore[arg-type]  # one of the three
            seeds=chosen_seeds,
        )
        before = study.tried()
        if before:
            tell.print(f"going on after {len(before)} trials in {study.folder}", soft_wrap=True)
        with TrialBar(tell, max(0, trials - len(before))) as bar:
            try:
                study.run(
                    trials,
                    begun=lambda number, _: bar.begin(f"trial {number}"),
                    ended=lambda tried: bar.end(_line(tried, study.best_number())),
                    progress=bar,
                )
            except SettingError as error:
                fail(str(error), 2)
            except KeyboardInterrupt:
                fail("stopped; the same command goes on where this one was", STOPPED)
        best, tried = study.best(), study.tried()
    chosen = study.settings(best)
    place = output or study.folder / "best.yaml"
    words = ["rankd", "tune", "--model", model, "--space", space.name, *rows.words, "--trials", str(trials)]
    words += ["--measure", measure, "--seeds", seeds]
    write_settings_file(
        place,
        {model: chosen},
        f"{shlex.join(words)}\n{datetime.now(UTC).date().isoformat()}: {measure} {best.value:.5f} on "
        f"validation rows, trial {best.number} of {len(tried)}; test rows were not read.",
    )
    if as_json:
        print_json(
            {
                "best": asdict(best),
                "settings": flat(chosen),
                "settings_file": str(place),
                "measure": measure,
                "trials": [asdict(one) for one in tried],
            }
        )
        return
    out.print(_table(tried, measure))
    out.print(
        f"\nbest: trial {best.number}, {measure} {best.value:.5f} on validation\n{place}\n"
        f"use it: rankd train --model {model} --settings {place} ...",
        soft_wrap=True,
    )


def _line(tried: Tried, best: int | None) -> str:
    said = tried.state if tried.value is None else f"{tried.value:.5f}"
    return f"trial {tried.number}: {said}{'  (best so far)' if tried.number == best else ''}"


def _table(tried: list[Tried], measure: str) -> Table:
    sign = 1 if measure == "log_loss" else -1
    done = sorted((one for one in tried if one.value is not None), key=lambda one: sign * (one.value or 0.0))
    shown = Table(title=f"the best of {len(tried)} trials", title_justify="left", box=None)
    shown.add_column("trial", justify="right")
    shown.add_column(measure, justify="right")
    names = list(done[0].values)
    for name in names:
        shown.add_column(name, justify="right")
    for one in done[:_SHOWN]:
        shown.add_row(str(one.number), f"{one.value:.5f}", *(_value(one.values[name]) for name in names))
    return shown


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
