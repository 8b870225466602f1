"""`rankd bundle sign`: say who published a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankd.cli.bundle_path import BundlePath, opened
from rankd.cli.screen import out, wants
from rankd_contract.errors import ContractError

__all__ = ["sign"]


def sign(
    path: BundlePath,
    key: Annotated[
        Path,
        typer.Option(
            help="File of an Ed25519 private key in PEM; openssl genpkey -algorithm ed25519 makes one."
        ),
    ],
) -> None:
    """Sign a bundle where it lies, for services that have `models.trusted_keys`."""
    bundle = opened(path)
    with wants():
        from rankd_export.errors import ExportError
        from rankd_export.signing import sign as put
    with wants(ExportError, ContractError, OSError):
        put(bundle, key)
    out.print(f"{bundle.manifest.model} version {bundle.manifest.version}: signed", soft_wrap=True)
