"""`rankd demo`: train, export, start the store, load features, serve, rank real films for a real user."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from rankd.cli.case import Case, choose
from rankd.cli.features import import_view
from rankd.cli.names import ARCHITECTURES, check_architecture
from rankd.cli.process import free_port, port_is_free, serving
from rankd.cli.rank import show
from rankd.cli.screen import HOME, Home, RedisUrl, download_bar, fail, tell, wants
from rankd.cli.train import free_folder, schema_of
from rankd.cli.training import run_training
from rankd.client import Client, RankdError
from rankd_contract.schema_file import load_schema

__all__ = ["demo"]

_DATA, _FALLBACK = "movielens-100k", "movielens-synthetic"
_CANDIDATES, _TOP_K, _AGAIN = 500, 10, 50
_FUSION = {"liked": 1.0, "loved": 1.0}


def demo(
    once: Annotated[bool, typer.Option("--once", help="Stop after the answer.")] = False,
    user: Annotated[int | None, typer.Option(help="Whom to rank for; default: the user seen last.")] = None,
    model: Annotated[str, typer.Option(help=f"What to train: {', '.join(ARCHITECTURES)}.")] = "mlcc",
    data: Annotated[str, typer.Option(help="Data set; without a network, the synthetic one.")] = _DATA,
    port: Annotated[int, typer.Option(help="Port to serve on; 0 takes a free one.", min=0, max=65535)] = 8080,
    prepare_only: Annotated[
        bool, typer.Option("--prepare-only", help="Train, export and load features, but do not serve.")
    ] = False,
    home: Home = HOME,
    repository: Annotated[
        Path | None, typer.Option(help="Published bundles; default: HOME/demo/bundles.")
    ] = None,
    redis_url: RedisUrl = None,
) -> None:
    """Train, export, start the store, load features, serve, and rank 500 unseen films for one user."""
    started = time.perf_counter()
    if port and not prepare_only and not port_is_free(port):
        fail(f"port {port} is taken; choose another with --port, or --port 0 for a free one", 2)
    check_architecture(model)
    port, home = port or free_port(), home / "demo"
    repository = repository or home / "bundles"
    with _step("data"):
        data, folder = _get_data(data)
    with _step(f"train {model}"):
        run = free_folder(home / "runs", model)
        run_training(folder / "examples.parquet", schema_of(data), model, run, data=data)
    with _step("export"):
        _export(run, model, repository)
    with ExitStack() as stack:
        if not prepare_only:
            with _step("start the store and the service"):
                process, url = stack.enter_context(serving(home, repository, port, redis_url))
        with _step("load features"):
            _import_features(folder, schema_of(data), home, redis_url)
        if prepare_only:
            return
        case = choose(folder, user, _CANDIDATES)
        body = _write_request(case, home)
        tell.print(f"\nUser {case.user} recently liked {', '.join(case.liked) or 'nothing yet'}.")
        with Client(url) as client, wants(RankdError):
            tell.print(f"Of {len(case.item_ids)} films this user has not seen, the {_TOP_K} best:\n")
            ask = partial(client.rank, model, case.user, case.item_ids, top_k=_TOP_K, timing=True)
            show(ask(), case.titles, len(case.item_ids), case.user)
            warm_ms = statistics.median(ask().took_ms for _ in range(_AGAIN))
        tell.print(f"that was the first request; the same one {_AGAIN} times more: median {warm_ms:.2f} ms")
        tell.print(
            f"[dim]{time.perf_counter() - started:.0f} s from the data to here, installation not counted[/]"
        )
        if not once:
            _print_addresses(url, model, body, None if redis_url else home / "store")
            try:
                process.wait()
            except KeyboardInterrupt:
                tell.print("stopping")
            else:
                fail(f"the service ended with exit code {process.returncode}; its words are above")


@contextmanager
def _step(title: str) -> Iterator[None]:
    tell.print(f"[bold cyan]▸ {title}[/]")
    started = time.perf_counter()
    yield
    tell.print(f"  [dim]{time.perf_counter() - started:.1f} s[/]")


def _get_data(name: str) -> tuple[str, Path]:
    with wants():
        from rankd_training.data import catalog
        from rankd_training.errors import DataError, OfflineError
    with wants(DataError), download_bar() as progress:
        try:
            folder = catalog.get(name, progress=progress)
        except OfflineError as error:
            if name != _DATA:
                raise
            tell.print(f"[yellow]{_DATA} cannot be had[/]: {error}", soft_wrap=True)
            tell.print(
                f"[yellow]going on with {_FALLBACK}: invented films, invented users with planted tastes[/]"
            )
            name = _FALLBACK
            folder = catalog.get(name, progress=progress)
    data_set = catalog.describe(name)
    tell.print(f"  {data_set.description}\n  [dim]{data_set.licence}[/]")
    return name, folder


def _export(run: Path, model: str, repository: Path) -> None:
    with wants():
        from rankd_contract.errors import ContractError
        from rankd_export.errors import ExportError
        from rankd_export.exporter import export_run
    with wants(ExportError, ContractError):
        bundle = export_run(run, repository, name=model, fusion=_FUSION)
    parity = bundle.manifest.parity
    worst = max(size["max_score_error"] for size in parity["sizes"])
    tell.print(
        f"  {bundle.path}: scores as the model's within {worst:.0e}, {len(parity['sizes'])} request sizes",
        soft_wrap=True,
    )


def _import_features(folder: Path, schema_file: Path, home: Path, redis_url: str | None) -> None:
    schema = load_schema(schema_file)
    for view, file in (("user", "users.parquet"), ("item", "items.parquet")):
        report = import_view(folder / file, schema, view, home / "store", redis_url)
        tell.print(f"  {report.rows:,} {view} rows, {report.rows_per_s:,.0f} a second")


def _write_request(case: Case, home: Path) -> Path:
    body: dict[str, Any] = {"user": case.user, "item_ids": case.item_ids, "top_k": _TOP_K, "timing": True}
    path = home / "request.json"
    path.write_text(json.dumps(body), encoding="utf-8")
    return path


def _print_addresses(url: str, model: str, body: Path, store: Path | None) -> None:
    command = Path(sys.executable).with_name("rankd")
    if command.is_relative_to(Path.cwd()):
        command = command.relative_to(Path.cwd())
    lines = [
        "\n[bold]It keeps serving; from another terminal try[/]",
        f"  curl -s {url}/v1/rank/{model} -H 'content-type: application/json' -d @{body}",
        f"  {command} rank --url {url} --user 42 --items 50,100,181,258",
        f"  {url}/v1/models   {url}/metrics   {url}/readyz   {url}/openapi.json",
    ]
    if store is not None:
        pid = json.loads((store / "store.json").read_bytes())["pid"]
        lines.append(f"  kill -9 {pid}   ends the store for 15 s: answers go on and say `degraded`")
    for line in [*lines, "Ctrl-C stops everything."]:
        tell.print(line, soft_wrap=True)
