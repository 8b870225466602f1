"""`python -m rankd_service --config FILE`: read the settings, serve, say in one line why not."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rankd_service.errors import StartupFailed
from rankd_service.settings_sources import load_settings
from rankd_service.workers.launch import serve

__all__ = ["main"]

_BAD_SETTINGS, _FAILED = 2, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the service -> exit code: 0 after a clean stop, 2 for wrong settings, 1 for anything else."""
    parser = argparse.ArgumentParser(prog="rankd_service", description="Rank candidates over HTTP.")
    parser.add_argument("--config", type=Path, help="settings as YAML; RANKD_SECTION__KEY beats them")
    config = parser.parse_args(arguments).config
    try:
        settings = load_settings(config)
    except StartupFailed as error:
        return _explain(error, _BAD_SETTINGS)
    try:
        serve(settings)
    except StartupFailed as error:
        return _explain(error, _FAILED)
    return 0


def _explain(error: StartupFailed, code: int) -> int:
    for handler in logging.getLogger().handlers:
        handler.flush()  # what was logged before it comes before it
    sys.stderr.write(f"{error}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
