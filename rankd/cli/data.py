"""`rankd data`: bring public data sets, prepared and checked, into the data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from rankd.cli.screen import JsonFlag, download_bar, out, print_json, row_bar, tell, wants

app = typer.Typer(
    help="Data sets: get public ones, convert published files, generate rows.", no_args_is_help=True
)

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


@app.command("convert")
def convert(
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="Such as criteo; `rankd data formats`.")],
    files: Annotated[
        list[Path], typer.Argument(help="The files as published, or the folder that holds them.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; it must not exist.")],
) -> None:
    """Turn files of a published data set into examples, users, items and a schema for `rankd train`."""
    with wants():
        from rankd_training.data.conversion import convert as write
        from rankd_training.data.formats import describe
        from rankd_training.errors import DataError

    with wants(DataError), row_bar("rows") as progress:
        how = describe(form)
        write(how, files, output, progress=progress)
    out.print(str(output), soft_wrap=True)
    command = f"rankd train --examples {output} {how.advice}".rstrip()
    tell.print(f"train on it with `{command}`", soft_wrap=True)


@app.command("formats")
def formats() -> None:
    """List the published forms that `rankd data convert` reads, and the files of each."""
    with wants():
        from rankd_training.data.formats import FORMATS
    table = Table("format", "what", "files", box=None)
    for how in FORMATS.values():
        table.add_row(how.name, how.description, " ".join(role.example for role in how.roles.values()))
    out.print(table)


@app.command("generate")
def generate(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; it must not exist.")],
    rows: Annotated[int, typer.Option(help="How many rows.", min=1)] = 1_000_000,
    fields: Annotated[int, typer.Option(help="Categorical fields.", min=1)] = 39,
    cardinality: Annotated[int, typer.Option(help="Ids a field, and rows of its table; even.", min=2)] = 1000,
    zipf: Annotated[float, typer.Option(help="Exponent of the ids' frequencies; 0 is uniform.")] = 1.05,
    numbers: Annotated[int, typer.Option(help="Plain numbers.", min=0)] = 0,
    sequences: Annotated[int, typer.Option(help="Histories of ids.", min=0)] = 0,
    length: Annotated[int, typer.Option(help="Of the longest history.", min=1)] = 20,
    tasks: Annotated[int, typer.Option(help="Labels.", min=1)] = 1,
    order: Annotated[int, typer.Option(help="Fields that an interaction joins.", min=1)] = 3,
    interactions: Annotated[int, typer.Option(help="Interactions a task.", min=0)] = 3,
    strength: Annotated[float, typer.Option(help="Of an interaction, in the logit.")] = 1.0,
    main: Annotated[float, typer.Option(help="Deviation of main effects.")] = 0.1,
    base_rate: Annotated[float, typer.Option(help="Share of ones.")] = 0.25,
    seed: Annotated[
        int, typer.Option(help="Number that the rows are drawn from: the same gives the same rows.")
    ] = 17,
) -> None:
    """Invent rows with planted interactions: examples.parquet and schema.yaml, ready for `rankd train`."""
    with wants():
        from rankd_training.data.planted import PlantedConfig, write_planted
        from rankd_training.errors import SettingError

    with wants(SettingError), row_bar("rows") as progress:
        config = PlantedConfig(
            rows=rows,
            fields=fields,
            cardinality=cardinality,
            zipf=zipf,
            numbers=numbers,
            sequences=sequences,
            length=length,
            tasks=tasks,
            order=order,
            interactions=interactions,
            strength=strength,
            main=main,
            base_rate=base_rate,
            seed=seed,
        )
        write_planted(output, config, progress=progress)
    out.print(str(output), soft_wrap=True)
    tell.print(f"train on it with `rankd train --examples {output}`", soft_wrap=True)
