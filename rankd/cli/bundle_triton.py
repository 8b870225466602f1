"""`rankd bundle triton`: a bundle as a model of a Triton model repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankd.cli.bundle_path import BundlePath, opened
from rankd.cli.screen import JsonFlag, fail, out, print_json, wants

__all__ = ["triton"]


def triton(
    path: BundlePath,
    to: Annotated[Path, typer.Option("--to", help="The model repository; made where there is none.")],
    name: Annotated[str | None, typer.Option(help="Name of the model in Triton; default: its own.")] = None,
    backend: Annotated[
        str, typer.Option(help="onnxruntime, or python where Triton has only its Python backend.")
    ] = "onnxruntime",
    as_json: JsonFlag = False,
) -> None:
    """Write a bundle for a Triton server: its graph, and a config.pbtxt with its inputs and outputs."""
    from rankd_export.errors import ExportError
    from rankd_export.triton import Backend, write_triton

    known = [b.value for b in Backend]
    if backend not in known:
        fail(f"--backend {backend}: expected one of {', '.join(known)}", 2)
    bundle = opened(path)
    with wants(ExportError, OSError):
        written = write_triton(bundle, to, name, Backend(backend))
    if as_json:
        print_json({"path": str(written), "model": written.parent.name, "version": bundle.manifest.version})
        return
    out.print(
        f"{written.parent.name} version {bundle.manifest.version}: {written}\n"
        f"serve it with: tritonserver --model-repository {to}",
        soft_wrap=True,
    )
