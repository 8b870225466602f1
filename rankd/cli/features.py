"""`rankd features`: write packed feature rows into the store, and read one back."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from rankd.cli.names import published_schema, unknown
from rankd.cli.screen import HOME, Home, JsonFlag, RedisUrl, fail, out, print_json, tell, wants
from rankd_contract.errors import ContractError
from rankd_contract.keys import key_prefix
from rankd_contract.schema import FeatureSchema, FeatureView
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
    restart: Annotated[
        bool, typer.Option("--restart", help="Write all rows, also where an import was cut short before.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Encode rows of users or items with a model's own schema and write them to the store.

    An import that was cut short goes on where it was when it is run again with the same file.
    """
    if (model is None) == (schema is None):
        fail("give exactly one of --model and --schema: the schema says how values are encoded", 2)
    if schema is None:
        known = published_schema(repository or home / "bundles", str(model))
    else:
        with wants(ContractError):
            known = load_schema(schema)
    report = import_view(parquet, known, view, home / "store", redis_url, namespace, resume=not restart)
    if report.ahead:
        tell.print(
            f"[bold yellow]warning[/]: {report.ahead:,} rows are dated more than a day ahead of now, so they "
            f"count as fresh until then; is that what view {view}'s event time means?",
            soft_wrap=True,
        )
    if as_json:
        print_json(asdict(report))
    else:
        before = f", {report.resumed_at:,} of them by an earlier import" if report.resumed_at else ""
        out.print(
            f"{report.rows:,} {view} rows{before}, {report.bytes:,} bytes, {report.rows_per_s:,.0f} rows/s",
            soft_wrap=True,
        )


@app.command("get")
def get(
    view: Annotated[str, typer.Argument(help="Feature view, such as user or item.")],
    entity_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the user or item.")],
    model: Annotated[str, typer.Option(help="Read the row by the schema of this published model.")],
    home: Home = HOME,
    repository: Annotated[Path | None, typer.Option(help="Published bundles; default: HOME/bundles.")] = None,
    redis_url: RedisUrl = None,
    namespace: Annotated[str, typer.Option(help="First part of every key.")] = "rankd",
    as_json: JsonFlag = False,
) -> None:
    """Show one stored row as the service reads it: values, statuses, age and bytes."""
    with wants():
        from rankd_service.errors import ServiceError
        from rankd_service.features.embedded import EmbeddedStore
        from rankd_service.features.inspect_row import inspect_row
        from rankd_service.features.redis_bulk import open_bulk
    schema = published_schema(repository or home / "bundles", model)
    stored = _stored_view(schema, view)
    with ExitStack() as stack, wants(ServiceError, ContractError):
        url = redis_url or stack.enter_context(EmbeddedStore.attach_or_start(home / "store")).url
        store = stack.enter_context(closing(open_bulk(url, timeout_s=5.0)))
        row = store.get(key_prefix(namespace, schema, stored) + entity_id)
        now_s = datetime.now(UTC).timestamp()
        report = inspect_row(schema, stored, entity_id, row, namespace, now_s)
    if as_json:
        print_json(asdict(report))
    else:
        age = "" if report.age_s is None else f", {timedelta(seconds=round(report.age_s))} old"
        out.print(
            f"{report.key}: {report.status}, {report.bytes} bytes{age}: {report.action}",
            soft_wrap=True,
            markup=False,
        )
        table = Table("field", "status", "stored", "read as", box=None, pad_edge=False, header_style="bold")
        for value in report.values:
            table.add_row(
                value.field, value.status, *map(escape, (_text(value.stored), _text(value.read_as)))
            )
        if report.values:
            out.print(table)
            tell.print("[dim]numbers are as encoded: what the field's transforms made of them[/]")
    if not report.values:
        raise typer.Exit(1)


def _text(value: object) -> str:
    return (
        "-" if value in (None, []) else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    )


def _stored_view(schema: FeatureSchema, name: str) -> FeatureView:
    views = {view.name: view for view in schema.stored_views}
    if name not in views:
        unknown("--view", name, list(views), "stored views of the schema")
    return views[name]


def import_view(
    parquet: Path,
    schema: FeatureSchema,
    view: str,
    store_folder: Path,
    redis_url: str | None,
    namespace: str = "rankd",
    resume: bool = True,
) -> ImportReport:
    """Import one view, into the store at `redis_url` or else the embedded one, with a progress bar."""
    stored = _stored_view(schema, view)
    with wants():
        from rankd_service.errors import ServiceError
        from rankd_service.features.embedded import EmbeddedStore
        from rankd_service.features.importer import import_rows
    # The bar ends before an error is told, else it would be drawn over it.
    with wants(ServiceError, ContractError), ExitStack() as stack:
        url = redis_url or stack.enter_context(EmbeddedStore.attach_or_start(store_folder)).url
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        bar = stack.enter_context(
            Progress(*columns, console=tell, transient=True, disable=not tell.is_interactive)
        )
        task = bar.add_task(f"{view} rows", total=None)
        return import_rows(
            parquet,
            schema,
            stored,
            url,
            namespace=namespace,
            resume=resume,
            now_s=datetime.now(UTC).timestamp(),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
