"""`rankd`: one verb a file. Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 a goal missed."""

from __future__ import annotations

import typer

from rankd.cli import (
    bench,
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
    serve,
    train,
    tune,
)

__all__ = ["app", "main"]

app = typer.Typer(
    name="rankd",
    help="Rank candidates for users under a latency budget: train, export, serve.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("tune")(tune.tune)
app.command("evaluate")(evaluate.evaluate)
app.command("report")(report.report)
app.command("explain")(explain.explain)
app.command("compare")(compare.compare)
app.command("scaling")(scaling.scaling)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.command("rank")(rank.rank)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)
app.add_typer(data.app, name="data")
app.add_typer(schema.app, name="schema")
app.add_typer(features.app, name="features")


def main() -> None:
    """Run the command line."""
    app()
