"""`rankd score`: a run and rows without labels in, a file of scores out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankd.cli.runs import RunFolder, run_or_newest
from rankd.cli.screen import HOME, Home, JsonFlag, fail, out, print_json, row_bar, spare, wants
from rankd_contract.errors import ContractError

__all__ = ["score"]


def score(
    examples: Annotated[
        Path,
        typer.Option(
            "--examples", help="Rows to score, columns as in training: a Parquet or libsvm file, or a folder."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--out", help="Parquet file of the scores; replaced if it is there.")
    ],
    run: RunFolder = None,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", help="Column to copy beside ids and scores; may be given several times."),
    ] = None,
    home: Home = HOME,
    as_json: JsonFlag = False,
) -> None:
    """Score rows offline, without labels and without a service; an exported model gives the same scores."""
    with wants():
        from rankd_training.errors import SettingError, TrainingError
        from rankd_training.runs.finished import Run
        from rankd_training.runs.scoring import score_file

    run = run_or_newest(run, home)
    spare("--out", output, examples)
    with wants(TrainingError, ContractError), row_bar("scoring") as told:
        try:
            rows = score_file(Run.load(run), examples, output, keep=keep or (), told=told)
        except SettingError as error:
            fail(f"--keep {error}", 2)
    if as_json:
        print_json({"run": str(run), "rows": rows, "scores": str(output)})
    else:
        out.print(f"{rows:,} rows scored: {output}", soft_wrap=True, markup=False)
