"""`rankd rank`: send one request to a running service and show the answer."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from rankd.cli.screen import JsonFlag, fail, out, print_json, wants
from rankd.client import Client, RankdError, Ranking

__all__ = ["rank", "show"]

Url = Annotated[str, typer.Option(help="Address of the service.")]


def rank(
    user: Annotated[
        str | None, typer.Option(help="Id of the user; none for a model of a table without users.")
    ] = None,
    items: Annotated[str | None, typer.Option(help="Ids of the candidates, separated by commas.")] = None,
    items_file: Annotated[Path | None, typer.Option(help="Or a file with one id a line.")] = None,
    model: Annotated[str | None, typer.Option(help="Model to ask; default: the only one served.")] = None,
    url: Url = "http://127.0.0.1:8080",
    top_k: Annotated[int, typer.Option(help="How many to show.", min=1)] = 10,
    deadline_ms: Annotated[float | None, typer.Option(help="Time the answer may take.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Rank candidates for a user."""
    candidates = _candidates(items, items_file)
    with Client(url) as client, wants(RankdError):
        name = model or _only_model(client)
        ranking = client.rank(name, user, candidates, deadline_ms=deadline_ms, top_k=top_k, timing=True)
    if as_json:
        print_json(asdict(ranking))
    else:
        show(ranking, {}, len(candidates))


def show(ranking: Ranking, titles: dict[str, str], candidates: int) -> None:
    """Print a slate, what was less than perfect about it, and where the time went."""
    tasks = list(ranking.items[0].scores) if ranking.items else []
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("#", justify="right")
    table.add_column("title" if titles else "item")
    for name in ("score", *tasks):
        table.add_column(name, justify="right")
    for item in ranking.items:
        name = titles.get(item.id, item.id) + (f"  ({item.status})" if item.status else "")
        table.add_row(str(item.rank), name, f"{item.score:.4f}", *(f"{item.scores[t]:.4f}" for t in tasks))
    out.print(table)
    stages = " · ".join(f"{stage} {ms:.2f}" for stage, ms in ranking.timing.items())
    out.print(
        f"\n{candidates} candidates by {ranking.model} version {ranking.version}"
        f" in {ranking.took_ms:.2f} ms: {stages}",
        soft_wrap=True,
    )
    for entry in ranking.degraded:
        out.print(f"[yellow]degraded[/]: {entry}", soft_wrap=True)


def _candidates(items: str | None, file: Path | None) -> list[str]:
    if (items is None) == (file is None):
        fail("give the candidates by exactly one of --items and --items-file", 2)
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").split()
        except OSError as error:
            fail(f"--items-file {file}: {error.strerror}", 2)
    return [part.strip() for part in str(items).split(",") if part.strip()]


def _only_model(client: Client) -> str:
    names = [str(m["model"]) for m in client.models()]
    if len(names) != 1:
        fail(f"--model is needed: the service has {', '.join(names) or 'no model'}", 2)
    return names[0]
