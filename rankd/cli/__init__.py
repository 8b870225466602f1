"""`rankd`: one verb a file. Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 a goal missed."""

from __future__ import annotations

import signal
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Annotated

import typer

from rankd.cli import (
    bench,
    bundle,
    compare,
    data,
    demo,
    doctor,
    evaluate,
    explain,
    export,
    features,
    rank,
    report,
    scaling,
    schema,
    score,
    serve,
    train,
    tune,
)
from rankd.cli.screen import out

__all__ = ["app", "main"]

app = typer.Typer(
    name="rankd",
    help="Rank candidates for users under a latency budget: train, export, serve.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(asked: bool) -> None:  # typer gives it so
    if asked:
        try:
            out.print(f"rankd {version('rankd')}")
        except PackageNotFoundError:  # run from a checkout that is not installed
            out.print("rankd, from a checkout that is not installed")
        raise typer.Exit


@app.callback()
def rankd(
    version_: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Rank candidates for users under a latency budget: train, export, serve."""


app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("tune")(tune.tune)
app.command("evaluate")(evaluate.evaluate)
app.command("score")(score.score)
app.command("report")(report.report)
app.command("explain")(explain.explain)
app.command("compare")(compare.compare)
app.command("scaling")(scaling.scaling)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.command("rank")(rank.rank)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)
app.add_typer(bundle.app, name="bundle")
app.add_typer(data.app, name="data")
app.add_typer(schema.app, name="schema")
app.add_typer(features.app, name="features")


def main() -> None:
    """Run the command line. SIGTERM ends it as an error would, so that nothing half made is left behind."""
    signal.signal(signal.SIGTERM, _end)
    app()


def _end(signum: int, _: FrameType | None) -> None:
    signal.signal(signum, signal.SIG_DFL)  # a second one ends it at once
    raise SystemExit(128 + signum)
