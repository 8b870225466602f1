"""The command line on a folder of examples, a schema and a run."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from rankd.cli import app


def rankd(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return result.stdout


def rows(place: Path) -> tuple[str | Path, ...]:
    return "--examples", place / "examples.parquet", "--schema", place / "schema.yaml"


def refused(*arguments: str | Path, code: int = 2) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return " ".join(result.stderr.split())
