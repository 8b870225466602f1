"""`rankd demo`: train, export, start the store, load features, serve, rank real films for a real user."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rankd_contract.schema_file import load_schema

from rankd.cli.features import import_view
from rankd.cli.process import free_port, port_is_free, serving
from rankd.cli.rank import show
from rankd.cli.screen import HOME, Home, RedisUrl, download_bar, fail, out, tell, wants
from rankd.cli.train import run_training
from rankd.client import Client, RankdError

__all__ = ["demo"]

_DATA, _FALLBACK = "movielens-100k", "movielens-synthetic"
_CANDIDATES, _TOP_K = 500, 10
_FUSION = {"liked": 1.0, "loved": 1.0}


@dataclass(frozen=True, slots=True)
class _Case:
    """One user, films they have not rated, and how to call the films."""

    user: str
    liked: tuple[str, ...]
    item_ids: tuple[str, ...]
    titles: dict[str, str]


def demo(
    once: Annotated[bool, typer.Option("--once", help="Stop after the answer.")] = False,
    user: Annotated[int | None, typer.Option(help="Whom to rank for; default: the user seen last.")] = None,
    model: Annotated[str, typer.Option(help="What to train: mlcc, dcnv2 or lr.")] = "mlcc",
    data: Annotated[str, typer.Option(help="Data set; without a network, the synthetic one.")] = _DATA,
    port: Annotated[int, typer.Option(help="Port to serve on; 0 takes a free one.", min=0, max=65535)] = 8080,
    prepare_only: Annotated[
        bool, typer.Option("--prepare-only", help="Train, export and load features, but do not serve.")
    ] = False,
    home: Home = HOME,
    repository: Annotated[Path | None, typer.Option(help="Published bundles; default: HOME/demo/bundles.")] = None,
    redis_url: RedisUrl = None,
) -> None:
    """Train, export, start the store, load features, serve, and rank 500 unseen films for one user."""
    started = time.perf_counter()
    if port and not prepare_only and not port_is_free(port):
        fail(f"port {port} is taken; choose another with --port, or --port 0 for a free one", 2)
    port, home = port or free_port(), home / "demo"
    repository = repository or home / "bundles"
    with _step("data"):
        folder = _get_data(data)
    with _step(f"train {model}"):
        run = _train(folder, model, home)
    with _step("export"):
        _export(run, model, repository)
    with ExitStack() as stack:
        if not prepare_only:
            with _step("start the store and the service"):
                process, url = stack.enter_context(serving(home, repository, port))
        with _step("load features"):
            _import_features(folder, home, redis_url)
        if prepare_only:
            return
        case = _choose(folder, user)
        body = _write_request(case, home)
        tell.print(f"\nUser {case.user} recently liked {', '.join(case.liked) or 'nothing yet'}.")
        with Client(url) as client, wants(RankdError):
            tell.print(f"Of {len(case.item_ids)} films this user has not seen, the {_TOP_K} best:\n")
            ranking = client.rank(model, case.user, case.item_ids, top_k=_TOP_K, timing=True)
        show(ranking, case.titles, len(case.item_ids))
        tell.print(f"[dim]{time.perf_counter() - started:.0f} s from nothing to here[/]")
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


def _get_data(name: str) -> Path:
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
            tell.print(f"[yellow]going on with {_FALLBACK}: invented films, invented users with planted tastes[/]")
            name = _FALLBACK
            folder = catalog.get(name, progress=progress)
    data_set = catalog.describe(name)
    tell.print(f"  {data_set.description}\n  [dim]{data_set.licence}[/]")
    return folder


def _train(folder: Path, model: str, home: Path) -> Path:
    return run_training(folder / "examples.parquet", folder / "schema.yaml", model, home / "runs" / model)


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
        f"  {bundle.path}: scores equal the model's within {worst:.0e} over {len(parity['sizes'])} request sizes",
        soft_wrap=True,
    )


def _import_features(folder: Path, home: Path, redis_url: str | None) -> None:
    schema = load_schema(folder / "schema.yaml")
    for view, file in (("user", "users.parquet"), ("item", "items.parquet")):
        report = import_view(folder / file, schema, view, home / "store", redis_url)
        tell.print(f"  {report.rows:,} {view} rows, {report.rows_per_s:,.0f} a second")


def _choose(folder: Path, user: int | None) -> _Case:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    films = pq.read_table(folder / "items.parquet", columns=["movie_id", "title"]).to_pydict()
    titles = dict(zip(map(str, films["movie_id"]), films["title"], strict=True))
    users = pq.read_table(folder / "users.parquet", columns=["user_id", "recent_liked", "event_time"])
    chosen = users.sort_by([("event_time", "descending")]).slice(0, 1)
    if user is not None:
        chosen = users.filter(pc.equal(users["user_id"], user))
        if not len(chosen):
            fail(f"--user {user}: the data has users {pc.min(users['user_id'])} to {pc.max(users['user_id'])}", 2)
    (row,) = chosen.to_pylist()
    ratings = pq.read_table(folder / "examples.parquet", columns=["user_id", "movie_id"])
    seen = set(ratings.filter(pc.equal(ratings["user_id"], row["user_id"]))["movie_id"].to_pylist())
    by_count = ratings["movie_id"].value_counts().to_pylist()
    by_count.sort(key=lambda film: (-film["counts"], film["values"]))
    unseen = [str(film["values"]) for film in by_count if film["values"] not in seen]
    liked = tuple(titles[str(film)] for film in row["recent_liked"][:4])
    return _Case(str(row["user_id"]), liked, tuple(unseen[:_CANDIDATES]), titles)


def _write_request(case: _Case, home: Path) -> Path:
    body: dict[str, Any] = {"user": case.user, "item_ids": case.item_ids, "top_k": _TOP_K, "timing": True}
    path = home / "request.json"
    path.write_text(json.dumps(body), encoding="utf-8")
    return path


def _print_addresses(url: str, model: str, body: Path, store: Path | None) -> None:
    lines = [
        "\n[bold]It keeps serving; try:[/]",
        f"  curl -s {url}/v1/rank/{model} -H 'content-type: application/json' -d @{body}",
        f"  rankd rank --url {url} --user 42 --items 50,100,181,258",
        f"  {url}/docs      the API          {url}/v1/models   what is served",
        f"  {url}/metrics   for Prometheus   {url}/readyz      whether it would serve",
    ]
    if store is not None:
        pid = json.loads((store / "store.json").read_bytes())["pid"]
        lines.append(f"  kill -9 {pid}   ends the store: answers go on from defaults and say so")
    for line in [*lines, "Ctrl-C stops everything."]:
        tell.print(line, soft_wrap=True)
