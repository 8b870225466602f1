"""`rankd explain`: which fields act together in a run's model, and do models just as good agree?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from rankd.cli.evaluate import LabelledRows, SplitName
from rankd.cli.runs import RunFolder, run_or_newest
from rankd.cli.screen import HOME, Home, JsonFlag, fail, out, print_json, tell, wants
from rankd_contract.errors import ContractError

__all__ = ["explain"]

PAGE = "explanation.html"
_SHOWN = 10


def explain(
    examples: LabelledRows,
    run: RunFolder = None,
    home: Home = HOME,
    fields: Annotated[
        str | None, typer.Option(help="Fields to pair, with commas between; default: the most important.")
    ] = None,
    top: Annotated[int, typer.Option(min=2, help="How many by default.")] = 5,
    task: Annotated[str | None, typer.Option(help="Whose loss; default: all tasks by weight.")] = None,
    epsilon: Annotated[
        float,
        typer.Option(help="How much worse a model may be and still count: 0.05 allows a loss 5 % higher."),
    ] = 0.05,
    rows: Annotated[int, typer.Option(min=10, help="Rows at most, drawn at random.")] = 1000,
    shuffles: Annotated[int, typer.Option(min=1, help="Permutations an effect.")] = 30,
    seed: Annotated[
        int,
        typer.Option(help="Number that rows and permutations are drawn from: the same gives the same page."),
    ] = 0,
    split: SplitName = None,
    output: Annotated[
        Path | None, typer.Option("--out", help="The page; default: explanation.html in the run's folder.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a page with swarm and halo plots of feature interactions, and a JSON file beside it."""
    with wants():
        from rankd_training.errors import SettingError, TrainingError
        from rankd_training.explanation.explanation import ExplainSettings
        from rankd_training.explanation.explanation import explain as run_explanation
        from rankd_training.explanation.rashomon import RashomonSettings
        from rankd_training.pages.explanation_page import explanation_page
        from rankd_training.runs.subject import load_subject

    run = run_or_newest(run, home)
    page = output or run / PAGE
    if not page.parent.is_dir():
        fail(f"--out {page}: the folder {page.parent} does not exist", 2)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with (
        wants(TrainingError, ContractError),
        Progress(*columns, console=tell, transient=True, disable=not tell.is_interactive) as bar,
    ):
        under_way = bar.add_task("reading", total=None)
        try:
            subject = load_subject(run, examples, split=split)
            found = run_explanation(
                subject,
                ExplainSettings(
                    fields=tuple(part.strip() for part in fields.split(",")) if fields else (),
                    top=top,
                    task=task,
                    max_rows=rows,
                    shuffles=shuffles,
                    seed=seed,
                    search=RashomonSettings(epsilon=epsilon),
                ),
                progress=lambda done, total, text: bar.update(
                    under_way, completed=done, total=total, description=text
                ),
            )
        except SettingError as error:
            fail(str(error), 2)
    page.write_text(explanation_page(subject, found), encoding="utf-8")
    tree = {"run": run.name, "model": subject.run.record["model"], "split": subject.split, **found.tree()}
    page.with_suffix(".json").write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    if as_json:
        print_json({"report": str(page), **tree})
        return
    table = Table(title="strongest interactions", title_justify="left", box=None)
    table.add_column("pair")
    for column in ("the model itself", "lowest", "highest"):
        table.add_column(column, justify="right")
    for pair in found.pairs[:_SHOWN]:
        low, high = pair.span
        effect = f"{pair.reference.value:+.4f} ± {pair.reference.error:.4f}"
        table.add_row(f"{pair.one} × {pair.other}", effect, f"{low:+.4f}", f"{high:+.4f}")
    out.print(table)
    out.print(f"\n{page}", soft_wrap=True)
