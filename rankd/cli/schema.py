"""`rankd schema`: a schema file to start from, proposed from the data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankd.cli.screen import fail, out, tell, wants

app = typer.Typer(help="Schema files: what the fields of a data set are.", no_args_is_help=True)


@app.callback()
def schema() -> None:
    """Schema files: what the fields of a data set are."""


@app.command("infer")
def infer(
    examples: Annotated[
        Path, typer.Argument(help="Parquet or libsvm file of examples, or a folder of them.")
    ],
    label: Annotated[
        list[str] | None, typer.Option(help="Column to predict, 0 or 1; several times for several tasks.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Column of the user's id; default: user_id.")] = None,
    item: Annotated[str | None, typer.Option(help="Column of the item's id; default: item_id.")] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Column that is neither feature nor label; several times.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the schema; default: the file's.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write it; default: standard output.")
    ] = None,
) -> None:
    """Propose a schema from column types and values; it trains as it is, and says why each field is so.

    A column of 0 and 1 that may be a second label is left out of the fields, and named.
    """
    with wants():
        from rankd_contract.errors import SchemaError
        from rankd_contract.schema_file import parse_schema
        from rankd_training.data.schema_proposal import Roles, propose_schema
        from rankd_training.errors import ExamplesError

    if output is not None and output.exists():
        fail(f"--output {output} exists; choose another name or remove it", 2)
    roles = Roles(tuple(label or ()), user, item, tuple(ignore or ()))
    with wants(ExamplesError, SchemaError):
        proposal = propose_schema(examples, roles, name=name or _name(examples))
        parse_schema(proposal.text)  # a proposal that is no schema would be ours to mend, not the reader's
    for note in proposal.notes:
        tell.print(note, soft_wrap=True, markup=False)
    if output is None:
        out.print(proposal.text, soft_wrap=True, markup=False, end="")
        return
    with wants():
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(proposal.text, encoding="utf-8")
    command = f"rankd train --examples {examples} --schema {output}"
    tell.print(f"{output}: read it, then run `{command}`", soft_wrap=True)


def _name(examples: Path) -> str:
    stem = "".join(c if c.isalnum() and c.isascii() else "-" for c in examples.resolve().stem).strip("-")
    return stem if stem[:1].isalpha() else f"data-{stem}".rstrip("-")
