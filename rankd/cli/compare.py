"""`rankd compare`: several models, several seeds, one set of examples; who is better, and is it chance?"""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from rankd.cli.bars import TrialBar
from rankd.cli.chosen import (
    DataName,
    ExamplesFile,
    GroupColumn,
    SchemaFile,
    SetPairs,
    SettingsFile,
    SplitShares,
    SplitTime,
    given,
    seeds_of,
    settings_files,
    settings_for,
    settings_of,
)
from rankd.cli.data import Root
from rankd.cli.names import ARCHITECTURES
from rankd.cli.screen import HOME, STOPPED, Home, JsonFlag, fail, out, print_json, tell, wants
from rankd_contract.errors import ContractError

if TYPE_CHECKING:
    from rankd_training.trials.trial import TrialResult

__all__ = ["compare"]


def compare(
    models: Annotated[
        str,
        typer.Option(help="Names with commas between; the others are compared with the first, or `all`."),
    ],
    data: DataName = None,
    examples: ExamplesFile = None,
    schema: SchemaFile = None,
    seeds: Annotated[str, typer.Option(help="How many, such as 5 (1 to 5), or which, such as 1,2,3.")] = "5",
    settings: SettingsFile = None,
    set_: SetPairs = None,
    output: Annotated[
        Path | None, typer.Option("--out", help="Folder for NAME.md and NAME.json; default: HOME/results.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the two files; default: the data's.")] = None,
    group_column: GroupColumn = None,
    split: SplitShares = None,
    split_time: SplitTime = None,
    resamples: Annotated[int, typer.Option(min=1, help="Draws of users for the 95 % intervals.")] = 300,
    again: Annotated[bool, typer.Option("--again", help="Train even what was trained before.")] = False,
    date: Annotated[str | None, typer.Option(help="Date that the files say; default: today.")] = None,
    home: Home = HOME,
    root: Root = None,
    as_json: JsonFlag = False,
) -> None:
    """Train each model with each seed and compare them on test. Stopped, it goes on where it was.

    Settings are presets, or come from --settings, or from --set for all networks alike; choose them
    with `rankd tune`, which sees no test rows.
    """
    with wants():
        from rankd_training.errors import SettingError, TrainingError
        from rankd_training.trials import trial as trials
        from rankd_training.trials.comparison import Contestant
        from rankd_training.trials.comparison import compare as run_comparison
        from rankd_training.trials.comparison_text import (
            comparison_markdown,
            comparison_table,
            comparison_verdicts,
            comparison_warnings,
        )
        from rankd_training.trials.provenance import made_by
        from rankd_training.trials.trial_store import TrialStore

    names = trials.all_names() if models == "all" else [part.strip() for part in models.split(",")]
    if len(set(names)) < len(names):
        fail(f"--models {models}: a model is named twice", 2)
    try:
        trials.check_names(names)
    except SettingError as error:
        fail(f"--models: {error}", 2)
    chosen_seeds, pairs = seeds_of(seeds), settings_of(set_ or [])
    reading = {"group_column": group_column, "split": split, "split_time": split_time}
    rows = given(data, examples, schema, root, reading)
    files = settings_files(settings or [])
    contestants = [
        Contestant(one, *settings_for(rows.data, one, files, pairs if one in ARCHITECTURES else None))
        for one in names
    ]
    title, folder = name or rows.name, output or home / "results"
    if Path(title).name != title:
        fail(f"--name {title}: expected the name of two files, and no folder; --out has the folder", 2)
    _spare_others(folder / f"{title}.json", names, chosen_seeds)
    with wants(TrainingError, ContractError):
        store = TrialStore(home / "trials", rows.source)
        with TrialBar(tell, len(names) * len(chosen_seeds)) as bar:
            try:
                report = run_comparison(
                    contestants,
                    chosen_seeds,
                    store,
                    again=again,
                    resamples=resamples,
                    begun=lambda trial: bar.begin(f"{trial.model}, seed {trial.seed}"),
                    ended=lambda result: bar.end(_line(result)),
                    progress=bar,
                )
            except SettingError as error:
                fail(str(error), 2)
            except KeyboardInterrupt:
                fail("stopped; the same command goes on where this one was", STOPPED)
    words = ["rankd", "compare", *rows.words, "--models", models, "--seeds", seeds]
    words += [word for path in settings or [] for word in ("--settings", path.name)]
    words += [word for pair in set_ or [] for word in ("--set", pair)]
    words += ["--name", name] if name else []
    words += ["--resamples", str(resamples)] if resamples != 300 else []  # noqa: PLR2004
    words += ["--date", date] if date else []
    today = date or datetime.now(UTC).date().isoformat()
    whole = {"data": title, **made_by(shlex.join(words), today), **report}
    _write(folder, title, whole, comparison_markdown(whole))
    if as_json:
        print_json(whole)
        return
    out.print(comparison_table(whole))
    for line in comparison_verdicts(whole):
        out.print(line, soft_wrap=True, markup=False)
    for line in comparison_warnings(whole):
        tell.print(f"[bold yellow]warning[/]: {escape(line)}", soft_wrap=True)
    out.print(f"\n{folder / title}.md and .json", soft_wrap=True)


def _spare_others(path: Path, names: list[str], seeds: list[int]) -> None:
    """Leave what took hours alone: a table of other models or of more seeds is not written over."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        there, runs = set(tree["models"]), set(tree["seeds"])
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        fail(f"{path} is there and is no table of `rankd compare`; choose another --name or --out", 2)
    if lost := sorted(there - set(names)):
        fail(f"{path} has {', '.join(lost)} too, which would be lost; choose another --name or --out", 2)
    if lost_seeds := sorted(runs - set(seeds)):
        said = ", ".join(map(str, lost_seeds))
        fail(f"{path} has seeds {said} too, which would be lost; choose another --name or --out", 2)


def _line(result: TrialResult) -> str:
    aucs = "  ".join(f"{task} {found.auc or 0:.4f}" for task, found in result.metrics["valid"].items())
    trial = result.trial
    return f"{trial.model}, seed {trial.seed}: validation AUC {aucs}  [dim]{result.duration_s:.1f} s[/]"


def _write(folder: Path, title: str, tree: dict[str, Any], text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{title}.json").write_text(
        json.dumps(tree, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )
    (folder / f"{title}.md").write_text(text, encoding="utf-8")
