"""`rankd bundle`: what a bundle is, whether a service would load it, how two differ, which one is served."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from rankd.cli.bundle_path import BundlePath, opened
from rankd.cli.bundle_sign import sign
from rankd.cli.bundle_triton import triton
from rankd.cli.screen import JsonFlag, fail, out, print_json, wants
from rankd_contract.bundle import Bundle
from rankd_contract.errors import ContractError
from rankd_contract.repository import point_to

__all__ = ["app"]

app = typer.Typer(
    name="bundle", help="Look at what was exported, and choose what is served.", no_args_is_help=True
)

# Reports of every size and split: too long for a screen, and there in --json.
_LONG = ("parity", "metrics", "record", "inputs", "outputs", "calibration", "files")


@app.command("show")
def show(path: BundlePath, as_json: JsonFlag = False) -> None:
    """Verify a bundle's files and say what it is."""
    bundle = opened(path)
    tree = _tree(bundle)
    if as_json:
        print_json({"path": str(bundle.path), "digest": bundle.digest, **tree})
        return
    table = Table(title=str(bundle.path), show_header=False, title_justify="left")
    for name, value in _flat({k: v for k, v in tree.items() if k not in _LONG}):
        table.add_row(name, str(value))
    for spec in (*bundle.manifest.inputs, *bundle.manifest.outputs):
        table.add_row(spec.name, f"{spec.dtype} [{', '.join(map(str, spec.dims))}]")
    for name, entry in bundle.manifest.files.items():
        table.add_row(name, f"{entry.bytes:,} bytes, SHA-256 {entry.sha256}")
    out.print(table)


@app.command("verify")
def verify(
    path: BundlePath,
    public_key: Annotated[
        list[Path] | None,
        typer.Option(help="File of a public key in PEM: the bundle must be signed by its owner. Repeatable."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Do what a service does before it serves: check every file and graph, replay golden requests."""
    bundle = opened(path)
    with wants():
        from rankd_service.errors import BundleRefused, StartupFailed
        from rankd_service.inference.loader import load_model
        from rankd_service.inference.trust import check_seal
        from rankd_service.settings_sources import load_settings
    with wants(BundleRefused, StartupFailed):
        settings = load_settings()
        keys = public_key or settings.models.trusted_keys
        signed_by = check_seal(bundle, keys)
        card = load_model(bundle, settings).card
    if as_json:
        verdict = {"path": str(bundle.path), "digest": bundle.digest, "provider": card.provider}
        print_json({**verdict, "signed_by": signed_by or None})
        return
    if signed_by:
        out.print(f"signed by the key {signed_by}")
    out.print(
        f"{card.name} version {card.version}: {len(bundle.manifest.files)} files are those of the manifest, "
        f"and recorded requests give their scores on {card.provider}",
        soft_wrap=True,
    )


@app.command("diff")
def diff(one: BundlePath, other: BundlePath, as_json: JsonFlag = False) -> None:
    """Say in what two bundles differ; exit code 3 where they do."""
    left, right = (dict(_flat(_tree(opened(path)))) for path in (one, other))
    changed = {
        name: (left.get(name), right.get(name))
        for name in sorted(left.keys() | right.keys())
        if left.get(name) != right.get(name)
    }
    if as_json:
        print_json(changed)
    else:
        table = Table("what", str(one), str(other))
        for name, values in changed.items():
            table.add_row(name, *("" if value is None else str(value) for value in values))
        out.print(table if changed else "no difference")
    raise typer.Exit(3 if changed else 0)


@app.command("use")
def use(
    path: Annotated[Path, typer.Argument(help="Folder of a version, HOME/bundles/MODEL/VERSION.")],
    as_json: JsonFlag = False,
) -> None:
    """Have services answer with a version that was exported before; it is verified first."""
    if not (path.name.isdecimal() and path.is_dir()):
        fail(f"{path}: no folder of a version; expected HOME/bundles/MODEL/VERSION", 2)
    home = path.absolute().parent
    with wants(ContractError):
        bundle = point_to(home.parent, home.name, int(path.name))
    if as_json:
        print_json({"model": bundle.manifest.model, "version": bundle.manifest.version})
        return
    out.print(f"{bundle.manifest.model}: services answer with version {bundle.manifest.version} from now on")


app.command("sign")(sign)
app.command("triton")(triton)


def _tree(bundle: Bundle) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(bundle.manifest.to_json())
    return tree


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
