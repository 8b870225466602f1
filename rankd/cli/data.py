"""`rankd data`: bring public data sets, prepared and checked, into the data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from rankd.cli.screen import JsonFlag, download_bar, out, print_json, tell, wants

app = typer.Typer(help="Public data sets: list them, get them.", no_args_is_help=True)

Root = Annotated[
    Path | None, typer.Option("--root", envvar="RANKD_DATA", help="Data folder; default: the user's cache.")
]


@app.command("get")
def get(
    name: Annotated[str, typer.Argument(help="Name of the data set, such as movielens-100k.")],
    root: Root = None,
    as_json: JsonFlag = False,
) -> None:
    """Download a data set, check its digest and prepare it. Broken downloads go on where they stopped."""
    from rankd_training.data import catalog
    from rankd_training.errors import DataError

    with wants(DataError):
        data_set = catalog.describe(name)
        with download_bar() as progress:
            folder = catalog.get(name, root=root, progress=progress)
    if as_json:
        print_json({"name": name, "folder": str(folder), "licence": data_set.licence})
        return
    tell.print(f"[dim]{data_set.licence}[/]")
    out.print(str(folder), soft_wrap=True)


@app.command("list")
def list_(root: Root = None, as_json: JsonFlag = False) -> None:
    """List the data sets that have a name."""
    with wants():
        from rankd_training.data import catalog

        rows = [(catalog.describe(name), catalog.is_prepared(name, root=root)) for name in catalog.names()]
    if as_json:
        print_json(
            [
                {"name": d.name, "description": d.description, "licence": d.licence, "here": here}
                for d, here in rows
            ]
        )
        return
    table = Table("name", "here", "what", "terms", box=None)
    for data_set, here in rows:
        table.add_row(data_set.name, "yes" if here else "no", data_set.description, data_set.licence)
    out.print(table)
