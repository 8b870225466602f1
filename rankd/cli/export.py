"""`rankd export`: a training run in, a verified and published bundle out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankd.cli.runs import RunFolder, run_or_newest
from rankd.cli.screen import HOME, Home, JsonFlag, fail, out, print_json, tell, wants
from rankd.tracking import TrackingFailed, log_bundle, logged_at
from rankd_contract.bundle import Bundle
from rankd_contract.cuda_graph import BUCKETS, check_buckets
from rankd_contract.errors import ContractError
from rankd_contract.manifest import MANIFEST, BundleManifest
from rankd_contract.repository import versions

if TYPE_CHECKING:
    from rankd_export.cuda.artefact import CudaPlan

__all__ = ["export", "parse_buckets", "parse_fusion"]


def export(
    run: RunFolder = None,
    home: Home = HOME,
    repository: Annotated[
        Path | None, typer.Option(help="Where bundles are published; default: HOME/bundles.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Model name in URLs; default: the architecture's.")] = None,
    fusion: Annotated[
        str | None,
        typer.Option(help="Weights of the ranking score, such as liked=1,loved=0.5; default: equal."),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(help="Add an output that says what each score was made of (ARM-Net)."),
    ] = False,
    calibrated: Annotated[
        bool,
        typer.Option("--calibrated", help="Add an output of calibrated scores, for other runtimes."),
    ] = False,
    precision: Annotated[
        str, typer.Option(help="fp32, int8 (linear layers), int8-embeddings (tables) or fp16.")
    ] = "fp32",
    examples: Annotated[
        Path | None,
        typer.Option(help="The run's examples, whose validation rows say what fewer bits lose."),
    ] = None,
    max_auc_loss: Annotated[
        float, typer.Option(min=0, help="Refuse fewer bits where any task's AUC loses more than this.")
    ] = 0.001,
    sign: Annotated[
        Path | None, typer.Option("--sign", help="Sign it with the Ed25519 private key in this PEM file.")
    ] = None,
    mlflow: Annotated[
        bool, typer.Option("--mlflow", help="Add the bundle to the MLflow run that `rankd train` logged.")
    ] = False,
    cuda: Annotated[
        str | None, typer.Option(help="Add a graph for CUDA devices: fp32, or fp16 or bf16 with --examples.")
    ] = None,
    cuda_buckets: Annotated[
        str | None,
        typer.Option(help="Candidates a run of it, such as 64,512; default: 64,256,512,1024,2048."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Turn a run into an ONNX graph, prove it equal to the model, and publish it as the next version."""
    run = run_or_newest(run, home)
    if mlflow and logged_at(run) is None:
        fail(f"{run} was not logged to MLflow; train with `rankd train --mlflow ADDRESS`", 2)
    with wants():
        from rankd_export.errors import ExportError
        from rankd_export.exporter import Variant, export_run
        from rankd_export.precision import Precision
        from rankd_training.errors import TrainingError

    known = [p.value for p in Precision]
    if precision not in known:
        fail(f"--precision {precision}: expected one of {', '.join(known)}", 2)
    variant = None
    if precision != Precision.FP32.value:
        if examples is None:
            fail(f"--precision {precision} needs --examples: what it loses is measured on validation rows", 2)
        variant = Variant(Precision(precision), examples, max_auc_loss)

    plan = _cuda_plan(cuda, cuda_buckets, examples, max_auc_loss)
    with wants(ContractError, ExportError, TrainingError):
        bundle = export_run(
            run,
            repository or home / "bundles",
            name=name,
            fusion=parse_fusion(fusion),
            explain=explain,
            calibrate=calibrated,
            variant=variant,
            key=sign,
            cuda=plan,
        )
    if mlflow:
        with wants(TrackingFailed):
            tell.print(f"added to the MLflow run {log_bundle(run, bundle)}", soft_wrap=True, markup=False)
    manifest = bundle.manifest
    before = _architecture_before(bundle)
    if before not in {None, manifest.architecture}:
        tell.print(
            f"[bold yellow]warning[/]: the version of {manifest.model} before this one was {before}, this "
            f"one is {manifest.architecture}; services that run answer with it from now on",
            soft_wrap=True,
        )
    if as_json:
        print_json(
            {
                "path": str(bundle.path),
                "version": manifest.version,
                "parity": manifest.parity,
                "export": dict(manifest.export),
                "cuda": None if manifest.cuda is None else asdict(manifest.cuda),
            }
        )
        return
    work = manifest.export["work"]
    worst = max(size["max_score_error"] for size in manifest.parity["sizes"])
    out.print(
        f"{manifest.model} version {manifest.version}: {bundle.path}\n"
        f"largest difference to the model over {len(manifest.parity['sizes'])} request sizes: {worst:.1e}"
        f"{_of_fewer_bits(manifest.export)}\n"
        f"multiply-adds a candidate: {work['per_candidate']:,}, and {work['per_user']:,} a user "
        f"({work['per_candidate_tiled']:,} a candidate were the user's side repeated)",
        soft_wrap=True,
    )
    if manifest.cuda is not None:
        operators = ", ".join(f"{count} {name}" for name, count in manifest.cuda.operators.items())
        out.print(
            f"for CUDA, {manifest.cuda.precision}: every node has a kernel in onnxruntime "
            f"{manifest.cuda.onnxruntime}; {operators or 'no contrib operator'}; "
            f"{', '.join(map(str, manifest.cuda.buckets))} candidates a run; no device has run it here",
            soft_wrap=True,
        )
    for task, loss in manifest.export.get("lost", {}).items():
        out.print(
            f"{manifest.export['precision']}, {task}: AUC {loss['auc']:.5f} loses {loss['auc_loss']:.5f}, "
            f"log loss {loss['log_loss']:.5f} rises by {loss['log_loss_rise']:.5f}, over {loss['rows']:,} "
            "validation rows",
            soft_wrap=True,
        )


def _of_fewer_bits(about: Mapping[str, Any]) -> str:
    """How far the graph that is published is off, where it is another one than was compared."""
    lost = about.get("lost", {})
    if not lost:
        return ""
    most = max(loss["largest_difference"] for loss in lost.values())
    return f" (of the float32 graph; of the {about['precision']} one over validation rows: {most:.1e})"


def _cuda_plan(
    precision: str | None, buckets: str | None, examples: Path | None, max_auc_loss: float
) -> CudaPlan | None:
    from rankd_export.cuda.artefact import CudaPlan, CudaPrecision

    if precision is None:
        if buckets is not None:
            fail(f"--cuda-buckets {buckets} needs --cuda, the graph that has them", 2)
        return None
    known = [p.value for p in CudaPrecision]
    if precision not in known:
        fail(f"--cuda {precision}: expected one of {', '.join(known)}", 2)
    if precision != CudaPrecision.FP32.value and examples is None:
        fail(f"--cuda {precision} needs --examples: what it loses is measured on validation rows", 2)
    return CudaPlan(CudaPrecision(precision), parse_buckets(buckets), examples, max_auc_loss)


def _architecture_before(bundle: Bundle) -> str | None:
    """Return the architecture of the version before; None where there is none, or it cannot be read."""
    home = bundle.path.parent
    try:
        before = max(v for v in versions(home.parent, home.name) if v < bundle.manifest.version)
        return BundleManifest.from_json((home / str(before) / MANIFEST).read_bytes()).architecture
    except (OSError, ValueError, ContractError):
        return None


def parse_fusion(text: str | None) -> dict[str, float] | None:
    """Read `task=weight,...`."""
    if text is None:
        return None
    try:
        return {task.strip(): float(weight) for task, weight in (part.split("=") for part in text.split(","))}
    except ValueError:
        fail(f"--fusion {text}: expected task=weight pairs, such as liked=1,loved=0.5", 2)


def parse_buckets(text: str | None) -> tuple[int, ...]:
    """Read `size,...`."""
    if text is None:
        return BUCKETS
    try:
        buckets = tuple(int(size) for size in text.split(","))
        check_buckets(buckets)
    except ValueError as error:
        fail(f"--cuda-buckets {text}: {error}", 2)
    return buckets
