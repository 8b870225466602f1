"""`rankd evaluate`: a run and examples in, metrics with intervals out, over all rows and by slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from rankd.cli.runs import RunFolder, run_or_newest
from rankd.cli.screen import HOME, Home, JsonFlag, fail, out, print_json, spare, tell, wants
from rankd_contract.errors import ContractError

if TYPE_CHECKING:
    from rankd_training.runs.evaluation import Evaluation, SliceMetrics
    from rankd_training.runs.subject import Subject

__all__ = ["LabelledRows", "SplitName", "evaluate"]

LabelledRows = Annotated[
    Path,
    typer.Option(
        "--examples", help="Labelled rows, columns as in training: a Parquet or libsvm file, or a folder."
    ),
]
SplitName = Annotated[
    str | None,
    typer.Option(
        help="Which rows: train, valid, test or all. Default: test; all where the file is not the one "
        "trained on and has no column `split`."
    ),
]

_MEASURES = {
    "auc": "AUC",
    "user_auc": "AUC per user",
    "log_loss": "log loss",
    "calibration_error": "ECE",
}


def evaluate(
    examples: LabelledRows,
    run: RunFolder = None,
    home: Home = HOME,
    split: SplitName = None,
    by: Annotated[
        list[str] | None,
        typer.Option("--by", help="Also by the values of this field or column; may be given several times."),
    ] = None,
    group_column: Annotated[
        str | None,
        typer.Option(
            help="Column that says whose row it is, for the AUC per user; default: the one training took."
        ),
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Draws of users for the 95 % intervals.")] = 300,
    scores: Annotated[
        Path | None, typer.Option(help="Write each row's scores and labels to this Parquet file.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say how good a run is on a split, with 95 % intervals, and where it is better or worse.

    Chance only ever adds to a calibration error (ECE), so its interval may end at the value itself.
    """
    with wants():
        from rankd_training.errors import SettingError, TrainingError
        from rankd_training.runs.evaluation import evaluate_run
        from rankd_training.runs.subject import load_subject, write_scores

    run = run_or_newest(run, home)
    spare("--scores", scores, examples)
    with wants(TrainingError, ContractError), tell.status("reading and scoring") as status:
        try:
            subject = load_subject(run, examples, split=split, group_column=group_column)
            if scores is not None:
                write_scores(subject, scores)
            found = evaluate_run(subject, by=by or (), resamples=resamples, progress=status.update)
        except SettingError as error:
            fail(str(error), 2)
        except OSError as error:
            fail(f"--scores {scores}: cannot be written: {error.strerror}")
    if as_json:
        print_json(
            {
                "run": str(run),
                "model": subject.run.record["model"],
                "examples_sha256": subject.examples.sha256,
                "trained_on_this_file": subject.same_file,
                "rows_seen_in_training": subject.seen and subject.seen.value,
                "split_by": subject.examples.split_by,
                "calibrated": subject.calibrated,
                **asdict(found),
            }
        )
        return
    for line in _other_rows(subject):
        kind = "warning" if subject.told_before else "note"
        tell.print(f"[bold yellow]{kind}[/]: {line}", soft_wrap=True)
    if subject.calibrated:
        tell.print("[dim]scores are calibrated, as they are where the model is served[/]")
    for table in _tables(found, subject.run.record["model"]):
        out.print(table)


def _other_rows(subject: Subject) -> list[str]:
    """Say what a person must know of rows that are not those of the training."""
    lines = [] if subject.provenance is None else [subject.provenance]
    if subject.unseen and subject.split != "all":
        dealt = subject.examples.split_by
        lines.append(f"nothing in them says which rows are for what; they were dealt out anew, {dealt}")
    return lines


def _tables(found: Evaluation, model: str) -> list[Table]:
    from rankd_training.measures.intervals import in_words  # after what may be missing

    title = f"{model}, {found.split}: {found.rows:,} rows{found.whose}"
    whole = Table(title=title, title_justify="left", box=None)
    whole.add_column("task", overflow="fold")
    whole.add_column("measure", no_wrap=True)
    whole.add_column("value", justify="right", no_wrap=True)
    whole.add_column("95 % interval", justify="right", style="dim", no_wrap=True)
    for task, metrics in found.metrics.items():
        facts = found.facts[task]
        rate = facts.positives / found.rows
        whole.add_row(task, "positives", f"{facts.positives:,}", f"{rate:.3g} of all rows")
        whole.add_row(task, "mean score", f"{facts.mean_score:.3g}", "")
        for measure, name in _MEASURES.items():
            if measure == "user_auc" and not found.ranks_for_users:
                continue  # there are no users to rank for
            ranked = f", {facts.ranked_users:,} users" if measure == "user_auc" else ""
            whole.add_row(task, name + ranked, *in_words(metrics[measure]))
        whole.add_row(task, "log loss of that share alone", f"{facts.constant_log_loss:.4f}", "")
    pieces = [(title, *one) for title, by_task in found.slices.items() for one in by_task.items()]
    return [whole, *(_slice_table(*one) for one in pieces)]


def _slice_table(title: str, task: str, pieces: Sequence[SliceMetrics]) -> Table:
    from rankd_training.measures.intervals import in_words

    table = Table(title=escape(f"\n{task} by {title}"), title_justify="left", box=None)
    table.add_column("", overflow="fold")
    for column in ("rows", "positives", "mean score", "ECE", "AUC"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", style="dim", no_wrap=True)
    for piece in pieces:
        table.add_row(
            escape(piece.title),
            f"{piece.rows:,}",
            f"{piece.positives:,} ({100 * piece.base_rate:.3g}%)",
            f"{piece.mean_score:.3g}",
            f"{piece.calibration_error:.4f}",
            *in_words(piece.auc),
        )
    return table
