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
    log_level: Annotated[
        str | None, typer.Option(help="Least important record to write: info, warning or error.")
    ] = None,
    parent: Annotated[int | None, typer.Option("--die-with", hidden=True)] = None,
) -> None:
    """Serve every published model; features come from REDIS_URL, else from an embedded Valkey."""
    if parent is not None:
        die_with(parent)
    with wants():
        from rankd_service.app import serve as run
        from rankd_service.errors import StartupFailed
        from rankd_service.settings import load_settings

    # What the settings file says holds where no option was given.
    listen: dict[str, Any] = {
        key: value
        for key, value in (("host", host), ("port", port), ("log_level", log_level))
        if value is not None
    }
    places: dict[str, dict[str, Any]] = {"server": listen}
    if config is None or repository is not None:
        places["models"] = {"repository": repository or home / "bundles"}
    if config is None:
        places["redis"] = {"embedded_folder": home / "store"}
    try:
        settings = load_settings(config, **places)
    except StartupFailed as error:
        fail(str(error), 2)
    with wants(StartupFailed):
        run(settings)
