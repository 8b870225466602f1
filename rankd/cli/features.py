"""`rankd features`: write packed feature rows into the store."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rankd.cli.screen import HOME, Home, JsonFlag, RedisUrl, fail, out, print_json, tell, wants
from rankd_contract.bundle import open_current
from rankd_contract.errors import ContractError
from rankd_contract.schema import FeatureSchema
from rankd_contract.schema_file import load_schema

if TYPE_CHECKING:
    from rankd_service.features.importer import ImportReport

__all__ = ["app", "import_view"]

app = typer.Typer(help="Feature rows in the store.", no_args_is_help=True)


@app.callback()
def features() -> None:
    """Feature rows in the store."""


@app.command("import")
def import_(
    parquet: Annotated[Path, typer.Argument(help="Parquet file with one row an entity.")],
    view: Annotated[str, typer.Option(help="Feature view of the schema that the rows belong to.")],
    model: Annotated[str | None, typer.Option(help="Take the schema of this published model.")] = None,
    schema: Annotated[Path | None, typer.Option(help="Or take it from this schema file.")] = None,
    home: Home = HOME,
    repository: Annotated[Path | None, typer.Option(help="Published bundles; default: HOME/bundles.")] = None,
    redis_url: RedisUrl = None,
    namespace: Annotated[str, typer.Option(help="First part of every key.")] = "rankd",
    as_json: JsonFlag = False,
) -> None:
    """Encode rows of users or items with a model's own schema and write them to the store."""
    if (model is None) == (schema is None):
        fail("give exactly one of --model and --schema: the schema says how values are encoded", 2)
    with wants(ContractError):
        known = (
            load_schema(schema) if schema else open_current(repository or home / "bundles", str(model)).schema
        )
    report = import_view(parquet, known, view, home / "store", redis_url, namespace)
    if as_json:
        print_json(asdict(report))
    else:
        out.print(f"{report.rows:,} {view} rows, {report.bytes:,} bytes, {report.rows_per_s:,.0f} rows/s")


def import_view(
    parquet: Path,
    schema: FeatureSchema,
    view: str,
    store_folder: Path,
    redis_url: str | None,
    namespace: str = "rankd",
) -> ImportReport:
    """Import one view, into the store at `redis_url` or else the embedded one, with a progress bar."""
    views = {v.name: v for v in schema.stored_views}
    if view not in views:
        fail(f"no view '{view}' to import; the schema stores {', '.join(views)}", 2)
    with wants():
        from rankd_service.errors import ServiceError
        from rankd_service.features.embedded import EmbeddedStore
        from rankd_service.features.importer import import_rows
    with ExitStack() as stack, wants(ServiceError, ContractError):
        url = redis_url or stack.enter_context(EmbeddedStore.attach_or_start(store_folder)).url
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        bar = stack.enter_context(Progress(*columns, console=tell, transient=True))
        task = bar.add_task(f"{view} rows", total=None)
        return import_rows(
            parquet,
            schema,
            views[view],
            url,
            namespace=namespace,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
