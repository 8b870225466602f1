"""`rankd serve`: the scoring service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rankd.cli.process import die_with
from rankd.cli.screen import HOME, Home, fail, wants

__all__ = ["serve"]


def serve(
    config: Annotated[Path | None, typer.Option(help="Settings file (YAML).")] = None,
    home: Home = HOME,
    repository: Annotated[Path | None, typer.Option(help="Published bundles; default: HOME/bundles.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; default 8080.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that serve; default: one for each core that may be used.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="Least important record to write: info, warning or error.")
    ] = None,
    parent: Annotated[int | None, typer.Option("--die-with", hidden=True)] = None,
) -> None:
    """Serve every published model; features come from REDIS_URL, else from an embedded Valkey."""
    if parent is not None:
        die_with(parent)
    with wants():
        from rankd_service.errors import StartupFailed
        from rankd_service.settings_sources import load_settings
        from rankd_service.workers.launch import serve as run

    listen = {"host": host, "port": port, "workers": workers, "log_level": log_level}
    given: dict[str, dict[str, Any]] = {"server": {k: v for k, v in listen.items() if v is not None}}
    if repository is not None:
        given["models"] = {"repository": repository}
    places = {"models": {"repository": home / "bundles"}, "redis": {"embedded_folder": home / "store"}}
    try:
        settings = load_settings(config, defaults=places, **given)
    except StartupFailed as error:
        fail(str(error), 2)
    with wants(StartupFailed):
        run(settings)
