"""`rankd bench`: ask a running service at a steady rate, and say how it held up."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from rankd.cli.names import check_served, only_model
from rankd.cli.screen import HOME, Home, JsonFlag, fail, out, print_json, tell, wants
from rankd.client import Client, RankdError, whole_url

if TYPE_CHECKING:
    from rankd.load.summary import Summary

__all__ = ["bench", "missed"]

_GATE_REFUSED = 3
_BODIES = 256
_BUSY = {503, 504}
_EXAMPLE = '{"user": "1", "item_ids": ["10", "11", "12"]}'
_LEGEND = (
    "good: answers in time; p50 to p99.9: latency, ms; slack: ms of the deadline left by all but the slowest "
    "1 %; refused: p99 until a refusal, ms"
)


def bench(
    url: Annotated[str, typer.Option(help="Address of the service.")] = "http://127.0.0.1:8080",
    model: Annotated[str | None, typer.Option(help="Model to ask; default: the only one served.")] = None,
    rate: Annotated[str, typer.Option(help="Requests a second, or several with commas.")] = "100",
    seconds: Annotated[float, typer.Option(help="How long each rate is held.", min=1, max=3600)] = 10,
    arrivals: Annotated[str, typer.Option(help="constant, or poisson as callers send.")] = "poisson",
    deadline_ms: Annotated[float, typer.Option(help="Deadline of each request.", min=1)] = 250,
    body: Annotated[Path | None, typer.Option(help="File with the request; default: the demo's.")] = None,
    users: Annotated[Path | None, typer.Option(help="Or draw them: a file with a user id a line,")] = None,
    items: Annotated[Path | None, typer.Option(help="and one with an item id a line.")] = None,
    candidates: Annotated[int, typer.Option(help="Candidates of a drawn request.", min=1)] = 500,
    zipf: Annotated[float, typer.Option(help="How unevenly items are drawn; 0 is all alike.", min=0)] = 1.1,
    slo: Annotated[
        list[str] | None,
        typer.Option(help="p99=20 (ms), in_time=0.99 or degraded=0.01; exit code 3 where one is missed."),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(help="Number that arrivals and drawn requests are drawn from: the same gives the same."),
    ] = 1,
    output: Annotated[
        Path | None, typer.Option("--out", help="Folder for bench.json and a picture a rate.")
    ] = None,
    home: Home = HOME,
    as_json: JsonFlag = False,
) -> None:
    """Send requests at a steady rate, whatever becomes of them; print latency, stages, slack and refusals.

    Slack is what an answer left of its deadline, in milliseconds; below 0 it was late.
    """
    with wants():
        import uvloop

        from rankd.load.arrivals import Arrivals, due_times
        from rankd.load.picture import draw
        from rankd.load.sender import send_all
        from rankd.load.summary import summarise
    if arrivals not in list(Arrivals):
        fail(f"--arrivals {arrivals}: expected {' or '.join(Arrivals)}", 2)
    goals = _goals(slo or [])
    rates = _rates(rate)
    bodies = _bodies(body, users, items, candidates, zipf, seed, home)
    url, headers = whole_url(url), {"X-Deadline-Ms": f"{deadline_ms:g}"}
    with Client(url) as client, wants(RankdError):
        model = model or only_model(client)
        check_served(client, model)
        _probe(client, model, bodies[0], headers)
    target = f"{url}/v1/rank/{model}"
    summaries, columns = [], (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    for one in rates:
        due_s = due_times(Arrivals(arrivals), one, seconds, seed)
        with Progress(*columns, console=tell, transient=True, disable=not tell.is_interactive) as bar:
            bar.add_task(f"{one:g} requests a second for {seconds:g} s")
            outcomes = uvloop.run(send_all(target, bodies, due_s, headers, patience_s=deadline_ms / 1000 + 1))
        summaries.append(summarise(outcomes, one, seconds, deadline_ms))
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            title = f"{one:g} requests a second, {model}, deadline {deadline_ms:g} ms"
            (output / f"bench-{one:g}.svg").write_text(draw(outcomes, title, deadline_ms), encoding="utf-8")
    tree = [asdict(s) for s in summaries]
    if output is not None:
        (output / "bench.json").write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    if as_json:
        print_json(tree)
    else:
        _show(summaries)
    misses = [m for s in summaries for m in missed(s, goals)]
    for line in misses:
        tell.print(f"[red]missed[/]: {line}", soft_wrap=True)
    if misses:
        raise typer.Exit(_GATE_REFUSED)


def _probe(client: Client, model: str, body: bytes, headers: dict[str, str]) -> None:
    """Leave where the service refuses what it is to be asked: a thousand refusals would say no more."""
    try:
        client.ask(model, json.loads(body), headers=headers)
    except RankdError as error:
        if error.status not in _BUSY:  # how often it is that is what is measured
            raise


def _rates(text: str) -> list[float]:
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = []
    if not rates or min(rates) <= 0:
        fail(f"--rate {text}: expected numbers above 0, such as 100 or 100,200,400", 2)
    return rates


def _bodies(
    body: Path | None,
    users: Path | None,
    items: Path | None,
    candidates: int,
    zipf: float,
    seed: int,
    home: Path,
) -> list[bytes]:
    from rankd.load.bodies import drawn_bodies

    if (users is None) != (items is None) or (body is not None and users is not None):
        fail("give --body FILE, or --users FILE together with --items FILE", 2)
    if users is not None and items is not None:
        of_users, of_items = _lines(users), _lines(items)
        if len(of_items) < candidates:
            fail(f"--items {items}: {len(of_items)} ids, fewer than --candidates {candidates}", 2)
        draw: dict[str, Any] = {"zipf": zipf, "count": _BODIES, "seed": seed, "settings": {"top_k": 10}}
        return drawn_bodies(of_users, of_items, candidates, **draw)
    path = body or home / "demo" / "request.json"
    advice = f"write one like {_EXAMPLE}, or give --users and --items"
    if not path.exists():
        fail(f"{path} does not exist; {advice}", 2)
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        fail(f"--body {path}: {error.strerror}", 2)
    except ValueError as error:
        fail(f"--body {path} is not JSON ({error}); {advice}", 2)
    if not isinstance(tree, dict):
        fail(f"--body {path} holds no request; {advice}", 2)
    return [json.dumps({k: v for k, v in tree.items() if k not in {"timing", "deadline_ms"}}).encode()]


def _lines(path: Path) -> list[str]:
    try:
        found = path.read_text(encoding="utf-8").split()
    except OSError as error:
        fail(f"{path}: {error.strerror}", 2)
    if not found:
        fail(f"{path}: holds no id", 2)
    return found


def _goals(slo: list[str]) -> dict[str, float]:
    goals: dict[str, float] = {}
    for text in slo:
        name, _, value = text.partition("=")
        try:
            goals[name] = float(value)
        except ValueError:
            name = ""
        if name not in {"p50", "p90", "p99", "p99.9", "in_time", "degraded"}:
            fail(
                f"--slo {text}: expected p50=, p90=, p99= or p99.9= (ms), in_time= or degraded= (shares)",
                2,
            )
    return goals


def missed(summary: Summary, goals: dict[str, float]) -> list[str]:
    """Say which goals (`--slo`, by name) one rate missed, a line each."""
    lines = []
    for name, goal in goals.items():
        if name == "in_time":
            value, good = summary.in_time, summary.in_time >= goal
        elif name == "degraded":
            value, good = summary.degraded["any"], summary.degraded["any"] <= goal
        else:
            value = summary.latency_ms.get(name, float("inf"))
            good = value <= goal
        if not good:
            found = f"{name} is {value:.4g}" if math.isfinite(value) else "no request was answered"
            lines.append(f"at {summary.rate:g} requests a second {found}; the goal is {name}={goal:g}")
    return lines


def _show(summaries: list[Summary]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    percentiles = "p50", "p90", "p99", "p99.9"
    for name in ("asked/s", "good/s", "in time", *percentiles, "slack", "degraded", "refused"):
        table.add_column(name, justify="right", no_wrap=True)
    for s in summaries:
        latency = [_ms(s.latency_ms.get(p)) for p in percentiles]
        slack, refused = _ms(s.slack_ms.get("p1")), _ms(s.refused_ms.get("p99"))
        shares = f"{s.in_time:.2%}", *latency, slack, f"{s.degraded['any']:.2%}", refused
        table.add_row(f"{s.rate:g}", f"{s.goodput:.0f}", *shares)
    out.print(table)
    out.print(f"[dim]{_LEGEND}[/]\n", soft_wrap=True)
    for s in summaries:
        answers = " · ".join(f"{status} {n:,}" for status, n in s.statuses.items())
        out.print(f"answers at {s.rate:g}/s: {answers}", soft_wrap=True)
    last = summaries[-1]
    stages = " · ".join(f"{name} {v['p50']:.2f}/{v['p99']:.2f}" for name, v in last.stages_ms.items())
    out.print(f"stages at {last.rate:g}/s, ms at p50/p99: {stages or 'none'}", soft_wrap=True)
    reasons = " · ".join(f"{name} {share:.2%}" for name, share in last.degraded.items() if name != "any")
    if reasons:
        out.print(f"degraded: {reasons}", soft_wrap=True)
    if last.lag_ms > 5:  # noqa: PLR2004  # ms; then the machine is too busy to be believed
        tell.print(
            f"[yellow]the generator itself was {last.lag_ms:.1f} ms late at its p99[/]", soft_wrap=True
        )


def _ms(value: float | None) -> str:
    """At most six characters, so that a row fits 80 columns."""
    return "-" if value is None else f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"  # noqa: PLR2004
