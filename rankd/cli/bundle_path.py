"""The bundle that a verb speaks of: a folder of a version, or of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankd.cli.screen import fail, wants
from rankd_contract.bundle import Bundle, open_bundle
from rankd_contract.errors import ContractError
from rankd_contract.manifest import MANIFEST
from rankd_contract.repository import open_current

__all__ = ["BundlePath", "opened"]

BundlePath = Annotated[
    Path,
    typer.Argument(help="Folder of a bundle, HOME/bundles/MODEL/VERSION; or of a model: its current one."),
]


def opened(path: Path) -> Bundle:
    """Open and verify a bundle, or leave with what is wrong."""
    path = path.absolute()  # what lies above `.` matters too
    with wants(ContractError):
        if (path / MANIFEST).exists():
            return open_bundle(path)
        if not path.is_dir():
            fail(f"{path}: no such folder; expected HOME/bundles/MODEL or HOME/bundles/MODEL/VERSION", 2)
        return open_current(path.parent, path.name)
