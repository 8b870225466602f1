"""A training run in, a verified bundle out: graph, parity, golden requests, manifest, atomic publish."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from rankd_contract.bundle import Bundle
from rankd_contract.calibration import Calibration
from rankd_contract.cuda_graph import CudaGraph
from rankd_contract.manifest import CARD, CUDA_GRAPH, GRAPH, ITEM_PART, REST, SCHEMA, WEIGHTS, BundleManifest
from rankd_contract.manifest import GOLDEN as GOLDEN_FILE
from rankd_contract.repository import publish
from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import inputs
from rankd_export.card import card
from rankd_export.cuda.artefact import CudaPlan, make
from rankd_export.errors import RunUnusable
from rankd_export.golden import to_npz
from rankd_export.graph import OPSET, results_of, to_onnx
from rankd_export.item_part import difference, split
from rankd_export.parity import TOLERANCE, Request, compare, run_onnx
from rankd_export.precision import GOLDEN_TOLERANCE, Precision, reduced
from rankd_export.quality import MAX_AUC_LOSS, judge, losses
from rankd_export.signing import sealer
from rankd_export.weights import load_back, write_apart
from rankd_export.work import work_of
from rankd_training.examples.examples import Examples
from rankd_training.examples.reading import examples_for, reading_of
from rankd_training.measures import calibration
from rankd_training.models.registry import name_of
from rankd_training.runs import checkpoint
from rankd_training.runs.run_folder import METRICS, RUN
from rankd_training.runs.samples import sample_requests

__all__ = ["EXAMPLE", "GOLDEN", "PARITY", "Variant", "export_run"]

# Candidates and user rows of the requests that a graph is traced with, compared on, and remembered by.
EXAMPLE = (7, 3)
PARITY = ((1, 1), (2, 1), (7, 1), (100, 1), (1000, 1), (2, 2), (7, 3), (100, 3), (1000, 3))
GOLDEN = ((1, 1), (7, 1), (100, 1), (100, 3))


@dataclass(frozen=True, slots=True)
class Variant:
    """A graph in fewer bits.

    Attributes:
        precision: which.
        examples: the file that the run was trained on; its validation rows say what is lost.
        max_auc_loss: how much AUC any task may lose.
    """

    precision: Precision
    examples: Path
    max_auc_loss: float = MAX_AUC_LOSS


def export_run(  # noqa: PLR0913  # all that an export can be asked for
    run: Path,
    repository: Path,
    *,
    name: str | None = None,
    fusion: Mapping[str, float] | None = None,
    explain: bool = False,
    calibrate: bool = False,
    variant: Variant | None = None,
    cuda: CudaPlan | None = None,
    key: Path | None = None,
) -> Bundle:
    """Export a run and publish it as the next version of model `name`.

    Args:
        run: folder that `rankd_training.recipes` left.
        repository: where bundles live.
        name: the model's name in URLs; default: the architecture's.
        fusion: weight of each task in the ranking score; default: equal weights.
        explain: give the graph an output that says what each score was made of, where the model can.
        calibrate: give the graph an output of calibrated scores; the service applies the curves itself.
        variant: publish it in fewer bits, if that loses little enough; default: float32.
        cuda: add a second graph, for a CUDA device; the first serves wherever there is none.
        key: file of a private key to sign it with; default: it is not signed.

    Raises:
        RunUnusable: the run is incomplete, or the fusion names a task it does not have.
        GraphRefused, ParityFailed: the graph is not fit to serve.
        QualityLost: the variant loses too much.
        KeyUnusable: the file holds no key to sign with.
        ContractError: the bundle could not be published.
    """
    seal = None if key is None else sealer(key)
    if cuda is not None:
        cuda.check()
        if variant is not None and variant.precision is not Precision.FP32:
            raise RunUnusable(
                f"{variant.precision.value} and a CUDA graph: recorded scores would be of one of both alone; "
                "choose one, or give the CUDA graph fewer bits of its own"
            )
    model = checkpoint.load(run)
    schema = model.schema
    architecture = name_of(model)
    weights = _fusion(schema, fusion)
    metrics, record = _read(run / METRICS), _read(run / RUN)
    (example,) = sample_requests(run, [EXAMPLE])
    curves = calibration.read(run)
    in_graph = _curves(run, curves, schema) if calibrate else None
    golden = sample_requests(run, GOLDEN, seed=2)
    recorded, tolerance = [_scores(model, request) for request in golden], TOLERANCE
    repository.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".graphs-", dir=repository) as named:  # where there is room for them
        folder = Path(named)
        graph = to_onnx(model, schema, _tensors(example), explain=explain, calibration=in_graph, apart=folder)
        requests = sample_requests(run, PARITY, seed=1)
        report = compare(model, graph, requests, calibration=in_graph, apart=folder)
        about: dict[str, Any] = {"precision": Precision.FP32.value, "work": work_of(graph).to_json()}
        if variant is not None and variant.precision is not Precision.FP32:
            load_back(graph, folder)
            graph, lost = _reduced(run, schema, graph, variant)
            about |= {
                "precision": variant.precision.value,
                "lost": lost,
                "max_auc_loss": variant.max_auc_loss,
            }
            recorded = [scores for _, scores in run_onnx(graph, golden)]
            tolerance = GOLDEN_TOLERANCE[variant.precision]
        files = _graphs(graph, folder)
        second = None
        if cuda is not None:
            second, made = _for_cuda(run, model, graph, cuda, requests, folder, in_graph)
            files |= _graphs(made, folder, CUDA_GRAPH)
        in_two = split(graph)
        if in_two is not None:
            files |= _written({ITEM_PART: in_two.item, REST: in_two.rest}, folder)
            off = difference(files[ITEM_PART], files[REST], golden, recorded, tolerance)
            if math.isfinite(off):
                about["item_part"] = {"numbers": in_two.numbers, "difference": off}
            else:  # a row that depends on the others is no item's own
                del files[ITEM_PART], files[REST]
        manifest = BundleManifest(
            model=name or architecture,
            version=0,
            architecture=architecture,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            schema_fingerprint=f"{schema.fingerprint:016x}",
            tasks=tuple(t.name for t in schema.tasks),
            fusion=weights,
            inputs=inputs(schema),
            outputs=results_of(model, schema, _tensors(example), explain=explain, calibrate=calibrate),
            opset=OPSET,
            golden_tolerance=tolerance,
            calibration=curves,
            cuda=second,
            parity=report.to_json(),
            metrics=metrics,
            record=record,
            export=about,
        )
        described: dict[str, bytes | Path] = {
            SCHEMA: run / checkpoint.SCHEMA,
            GOLDEN_FILE: to_npz(golden, recorded),
            CARD: card(manifest, model).encode(),
        }
        return publish(repository, manifest, {**described, **files}, seal)


def _graphs(graph: onnx.ModelProto, folder: Path, name: str = GRAPH) -> dict[str, Path]:
    """Write a graph, and its large tensors beside it; it is left with where they lie."""
    apart = write_apart(graph, folder)
    return _written({name: graph}, folder) | ({} if apart is None else {WEIGHTS: apart})


def _written(graphs: Mapping[str, onnx.ModelProto], folder: Path) -> dict[str, Path]:
    for name, graph in graphs.items():
        (folder / name).write_bytes(graph.SerializeToString(deterministic=True))
    return {name: folder / name for name in graphs}


def _reduced(
    run: Path, schema: FeatureSchema, graph: onnx.ModelProto, variant: Variant
) -> tuple[onnx.ModelProto, dict[str, dict[str, float]]]:
    """Return the variant, and what it loses by task; raises QualityLost where that is too much."""
    less = reduced(graph, variant.precision)
    lost = losses(graph, less, _examples(run, schema, variant.examples))
    judge(lost, variant.max_auc_loss)
    return less, {task: loss.to_json() for task, loss in lost.items()}


def _for_cuda(
    run: Path,
    model: Any,
    graph: onnx.ModelProto,
    plan: CudaPlan,
    requests: Sequence[Request],
    folder: Path,
    calibration: Calibration | None,
) -> tuple[CudaGraph, onnx.ModelProto]:
    examples = None if plan.examples is None else _examples(run, model.schema, plan.examples)
    return make(model, graph, plan, requests, folder, examples=examples, calibration=calibration)


def _examples(run: Path, schema: FeatureSchema, file: Path) -> Examples:
    record = _read(run / RUN)
    examples = examples_for(file, schema, reading_of(record["settings"]))
    if examples.sha256 != record.get("examples_sha256"):
        raise RunUnusable(
            f"{file} is not the file that {run} was trained on, so its validation rows may have been "
            "learned from; give that file (the run's record has its name and SHA-256)"
        )
    return examples


def _fusion(schema: FeatureSchema, given: Mapping[str, float] | None) -> dict[str, float]:
    tasks = [t.name for t in schema.tasks]
    weights = dict(given) if given is not None else dict.fromkeys(tasks, 1.0)
    unknown = sorted(set(weights) - set(tasks))
    if unknown:
        raise RunUnusable(f"fusion names {', '.join(unknown)}; the run's tasks are {', '.join(tasks)}")
    if not all(np.isfinite(w) and w >= 0 for w in weights.values()) or not any(weights.values()):
        raise RunUnusable(f"fusion weights {weights}: expected numbers of at least 0, one of them above 0")
    return weights


def _curves(run: Path, curves: Mapping[str, Mapping[str, Any]], schema: FeatureSchema) -> Calibration:
    if not curves:
        raise RunUnusable(f"{run} was not calibrated, so its graph cannot calibrate; leave --calibrated out")
    return Calibration.of(curves, [t.name for t in schema.tasks])


def _scores(model: nn.Module, request: Request) -> np.ndarray[Any, np.dtype[np.float32]]:
    with torch.no_grad():
        scores: Tensor = torch.sigmoid(model(_tensors(request)))
    return scores.numpy()


def _tensors(request: Request) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in request.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunUnusable(
            f"{path}: {error}; is {path.parent} the folder of a finished `rankd train`?"
        ) from error
    return tree
