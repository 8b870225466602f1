"""`rankd scaling`: how a model's quality grows with its size, and the law that fits."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

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
from rankd.cli.screen import HOME, STOPPED, Home, JsonFlag, fail, out, print_json, tell, wants
from rankd_contract.errors import ContractError

__all__ = ["scaling"]


def scaling(
    data: DataName = None,
    examples: ExamplesFile = None,
    schema: SchemaFile = None,
    model: Annotated[str, typer.Option(help="Whose size is varied.")] = "mlcc",
    axis: Annotated[
        list[str] | None,
        typer.Option(
            "--axis",
            help="A setting and its values, such as model.heads=1,2,4,8; may be given several times. "
            "Default for mlcc: channels, heads and embedding width.",
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="How many, such as 3 (1 to 3), or which, such as 1,2.")] = "3",
    settings: SettingsFile = None,
    output: Annotated[
        Path | None, typer.Option("--out", help="Folder for the page and the JSON; default: HOME/results.")
    ] = None,
    group_column: GroupColumn = None,
    split: SplitShares = None,
    split_time: SplitTime = None,
    home: Home = HOME,
    root: Root = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a model in several sizes and fit a + b * size^-c to its quality on validation rows.

    Stopped, it goes on where it was. Writes scaling-NAME-MODEL.html and .json.
    """
    with wants():
        from rankd_training.errors import SettingError, TrainingError
        from rankd_training.pages.scaling_page import scaling_page
        from rankd_training.runs.held import held
        from rankd_training.trials.provenance import made_by
        from rankd_training.trials.scaling import DEFAULT_AXES, parse_axis, scale
        from rankd_training.trials.trial import check_names
        from rankd_training.trials.trial_store import TrialStore
        from rankd_training.trials.withheld import without_test

    try:
        check_names([model])
        axes = tuple(map(parse_axis, axis)) if axis else DEFAULT_AXES.get(model, ())
    except SettingError as error:
        fail(str(error), 2)
    if not axes:
        fail(f"--axis: {model} has no sizes by default; give some, such as --axis model.heads=1,2,4,8", 2)
    chosen_seeds = seeds_of(seeds)
    reading = {"group_column": group_column, "split": split, "split_time": split_time}
    rows = given(data, examples, schema, root, reading)
    base, _ = settings_for(rows.data, model, settings_files(settings or []))
    total = len(chosen_seeds) * sum(len(one.values) for one in axes)
    with wants(TrainingError, ContractError):
        # The copy's name has the original's digest, so that a changed file is copied anew.
        digest = rows.source.digests()["examples"]
        kept = home / "withheld" / f"{digest[:20]}.parquet"
        kept.parent.mkdir(parents=True, exist_ok=True)
        with (
            held(kept.with_suffix(".lock"), "sizes of models on these examples"),
            TrialBar(tell, total) as bar,
        ):
            try:
                store = TrialStore(home / "trials", without_test(rows.source, kept))
                report = scale(
                    model,
                    base,
                    axes,
                    chosen_seeds,
                    store,
                    begun=lambda trial: bar.begin(f"{trial.model}, seed {trial.seed}"),
                    ended=lambda _: bar.end(),
                    progress=bar,
                )
            except SettingError as error:
                fail(str(error), 2)
            except KeyboardInterrupt:
                fail("stopped; the same command goes on where this one was", STOPPED)
            finally:
                kept.unlink(missing_ok=True)
    words = [
        *("rankd", "scaling", *rows.words, "--model", model, "--seeds", seeds),
        *(word for one in axis or [] for word in ("--axis", one)),
        *(word for path in settings or [] for word in ("--settings", path.name)),
    ]
    made = made_by(shlex.join(words), datetime.now(UTC).date().isoformat())
    whole = {"data": rows.name, **made, **report, "examples_sha256": digest}
    place = (output or home / "results") / f"scaling-{rows.name}-{model}.html"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(scaling_page(whole), encoding="utf-8")
    place.with_suffix(".json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    if as_json:
        print_json({"report": str(place), **whole})
        return
    out.print(_table(whole))
    out.print(f"\n{place} and .json", soft_wrap=True)


def _table(report: dict[str, Any]) -> Table:
    shown = Table(title="log loss on validation = a + b · size^−c", title_justify="left", box=None)
    shown.add_column("setting")
    for column in ("a", "b", "c", "95 % of c", "settled"):
        shown.add_column(column, justify="right")
    for setting, axis in report["axes"].items():
        fit = axis["fits"]["log_loss"]
        law, (low, high) = fit["law"], fit["c"]
        shown.add_row(
            setting,
            f"{law['a']:.4f}",
            f"{law['b']:.4f}",
            f"{law['c']:.2f}",
            f"{low:.2f} to {high:.2f}",
            "yes" if fit["settled"] else "no",
        )
    return shown
