"""`rankd report`: a run and examples in, one HTML page with pictures out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankd.cli.evaluate import LabelledRows, SplitName
from rankd.cli.runs import RunFolder, run_or_newest
from rankd.cli.screen import HOME, Home, JsonFlag, fail, out, print_json, tell, wants
from rankd_contract.errors import ContractError

__all__ = ["REPORT", "report", "write_report"]

REPORT = "report.html"


def report(
    examples: LabelledRows,
    run: RunFolder = None,
    home: Home = HOME,
    output: Annotated[
        Path | None, typer.Option("--out", help="The page; default: report.html in the run's folder.")
    ] = None,
    split: SplitName = None,
    by: Annotated[
        list[str] | None,
        typer.Option("--by", help="Also by the values of this field or column; may be given several times."),
    ] = None,
    shuffles: Annotated[int, typer.Option(min=1, help="Permutations a field for its importance.")] = 5,
    resamples: Annotated[int, typer.Option(min=1, help="Draws of users for the 95 % intervals.")] = 300,
    as_json: JsonFlag = False,
) -> None:
    """Write a page that shows how a run learned, how good it is and where, and what it leans on."""
    run = run_or_newest(run, home)
    page = output or run / REPORT
    write_report(run, examples, page, split=split, by=by or [], shuffles=shuffles, resamples=resamples)
    if as_json:
        print_json({"run": str(run), "report": str(page)})
    else:
        out.print(str(page), soft_wrap=True)


def write_report(
    run: Path,
    examples: Path,
    page: Path,
    *,
    split: str | None = None,
    by: list[str] | None = None,
    shuffles: int = 5,
    resamples: int = 300,
) -> None:
    """Write the page, with what is being done on the screen."""
    with wants():
        from rankd_training.errors import SettingError, TrainingError
        from rankd_training.pages.run_page import measure_importance, run_page
        from rankd_training.runs.evaluation import evaluate_run
        from rankd_training.runs.subject import load_subject

    if not page.parent.is_dir():
        fail(f"--out {page}: the folder {page.parent} does not exist", 2)
    with wants(TrainingError, ContractError), tell.status("reading and scoring") as status:
        try:
            subject = load_subject(run, examples, split=split)
            evaluation = evaluate_run(subject, by=by or (), resamples=resamples, progress=status.update)
        except SettingError as error:
            fail(str(error), 2)
        importance = measure_importance(
            subject, shuffles=shuffles, progress=lambda field: status.update(f"importance of {field}")
        )
        page.write_text(run_page(subject, evaluation, importance), encoding="utf-8")
