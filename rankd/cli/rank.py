"""`rankd rank`: send one request to a running service and show the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from rankd.cli.names import only_model, served_instead
from rankd.cli.screen import JsonFlag, fail, out, print_json, split_pair, wants
from rankd.client import Client, RankdError, Ranking
from rankd_contract.errors import YamlError
from rankd_contract.strict_yaml import read_yaml

__all__ = ["REASONS", "RUNGS", "rank", "show", "shown_score"]

Url = Annotated[str, typer.Option(help="Address of the service.")]


def rank(
    user: Annotated[
        str | None, typer.Option(help="Id of the user; none for a model of a table without users.")
    ] = None,
    items: Annotated[str | None, typer.Option(help="Ids of the candidates, separated by commas.")] = None,
    items_file: Annotated[Path | None, typer.Option(help="Or a file with one id a line.")] = None,
    model: Annotated[str | None, typer.Option(help="Model to ask; default: the only one served.")] = None,
    url: Url = "http://127.0.0.1:8080",
    context: Annotated[
        list[str] | None,
        typer.Option(
            help="Field of the context as key=value, such as hour=7, or zip='\"01234\"' where digits are "
            "text; may be given several times."
        ),
    ] = None,
    top_k: Annotated[int, typer.Option(help="How many to show.", min=1)] = 10,
    deadline_ms: Annotated[float | None, typer.Option(help="Time the answer may take.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Rank candidates for a user."""
    candidates, fields = _candidates(items, items_file), _context(context or [])
    with Client(url) as client, wants(RankdError):
        name = model or only_model(client)
        try:
            ranking = client.rank(
                name,
                user,
                candidates,
                context=fields or None,
                deadline_ms=deadline_ms,
                top_k=top_k,
                timing=True,
            )
        except RankdError as error:
            served_instead(client, name, error)
    if as_json:
        print_json(asdict(ranking))
    else:
        show(ranking, {}, len(candidates), user)


def show(ranking: Ranking, titles: dict[str, str], candidates: int, user: str | None) -> None:
    """Print a slate, what was less than perfect about it, and where the time went."""
    tasks = list(ranking.items[0].scores) if ranking.items else []
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("#", justify="right")
    table.add_column("title" if titles else "item")
    for name in ("score", *tasks):
        table.add_column(name, justify="right")
    for item in ranking.items:
        name = escape(titles.get(item.id, item.id)) + (f"  ({item.status})" if item.status else "")
        table.add_row(
            str(item.rank), name, shown_score(item.score), *(shown_score(item.scores[t]) for t in tasks)
        )
    out.print(table)
    stages = " · ".join(f"{stage} {ms:.2f}" for stage, ms in ranking.timing.items())
    out.print(
        f"\n{candidates} candidates by {ranking.model} version {ranking.version}"
        f" in {ranking.took_ms:.2f} ms: {stages}",
        soft_wrap=True,
    )
    if "NOT_FOUND" in ranking.feature_status.get("user", {}):
        said = f"user {user}: no stored row, the schema's defaults were used"
        out.print(said, soft_wrap=True, markup=False)
    for entry in ranking.degraded:
        out.print(f"[yellow]degraded[/]: {escape(_words(entry))}", soft_wrap=True)


_RARE = 0.001
REASONS = {
    "store_down": "the feature store is down",
    "store_timeout": "the feature store did not answer in time",
    "store_busy": "the feature store was too busy",
    "store_error": "the feature store answered with an error",
    "no_time": "no time was left to read features",
    "features_missing": "most candidates have no stored features",
    "rows_unreadable": "stored rows could not be read",
    "inference_late": "the model had no time for all of them",
    "score_not_finite": "the model gave no number",
}
_REMEDIES = {"features_missing": "; run `rankd features import`"}
RUNGS = {
    "near_cache_row": "were scored with their own rows as kept from earlier",
    "default_row": "were scored with defaults for the user's row or their own",
    "cheaper_model": "were scored by a cheaper model",
    "fewer_candidates": "were not scored and follow with the model's average",
    "retrieval_order": "were not scored and stand in the order they came in",
    "last_place": "were put last",
}


def shown_score(value: float) -> str:
    """Four decimals; of a rare event, four digits."""
    return f"{value:.4f}" if value >= _RARE or value == 0 else f"{value:.3e}"


def _words(entry: Mapping[str, Any]) -> str:
    """Say what was answered instead, for how many candidates and why; a newer service's words as they are."""
    reason, rung, affected = str(entry.get("reason")), str(entry.get("rung")), entry.get("affected")
    remedy = _REMEDIES.get(reason, "")
    done = RUNGS.get(rung, f"were answered by {rung}")
    return f"{REASONS.get(reason, reason)}: {affected} of the candidates {done} ({reason}){remedy}"


def _candidates(items: str | None, file: Path | None) -> list[str]:
    if (items is None) == (file is None):
        fail("give the candidates by exactly one of --items and --items-file", 2)
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").split()
        except OSError as error:
            fail(f"--items-file {file}: {error.strerror}", 2)
    return [part.strip() for part in str(items).split(",") if part.strip()]


def _context(pairs: list[str]) -> dict[str, Any]:
    """Read `key=value` pairs, values as YAML."""
    fields: dict[str, Any] = {}
    for pair in pairs:
        key, text = split_pair("--context", pair, "hour=7")
        try:
            fields[key] = read_yaml(text)
        except YamlError:
            fail(f"--context {key}: the value is not valid YAML", 2)
    return fields
