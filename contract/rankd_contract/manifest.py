"""What a bundle says of itself: model, signature, fusion of tasks, provenance, digest of every file."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

from rankd_contract.calibration import Calibration
from rankd_contract.cuda_graph import CudaGraph
from rankd_contract.errors import CorruptBundle, UnsupportedFormat
from rankd_contract.signature import TensorSpec

__all__ = [
    "CARD",
    "CUDA_GRAPH",
    "FORMAT",
    "GOLDEN",
    "GRAPH",
    "ITEM_PART",
    "MANIFEST",
    "MODEL_NAME",
    "REST",
    "SCHEMA",
    "WEIGHTS",
    "BundleManifest",
    "FileEntry",
]

FORMAT = "rankd-bundle/4"
# Version 1 had no calibration, version 2 did not say how its graph was made, version 3 had no graph for CUDA.
READABLE = ("rankd-bundle/1", "rankd-bundle/2", "rankd-bundle/3", FORMAT)
MANIFEST, GRAPH, SCHEMA, GOLDEN = "manifest.json", "model.onnx", "schema.yaml", "golden.npz"
# For people, the graphs' large tensors, and the graph for CUDA; a bundle may lack each.
CARD, WEIGHTS, CUDA_GRAPH = "card.md", "weights.bin", "model.cuda.onnx"
# The graph once more, in two: what rests on the item alone, and what follows. A bundle has both or neither.
ITEM_PART, REST = "item_part.onnx", "rest.onnx"
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Size and SHA-256 of one file of a bundle."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class BundleManifest:
    """The manifest of one version of one model.

    `fusion` maps task names to the weights of the ranking score (a weighted mean of the task scores);
    `calibration` maps task names to the curve that follows the graph (`calibration.py`); `golden_tolerance`
    is how far a replayed score near one half, as the graph gives it, may lie from the recorded one (others by
    4 p (1 - p) of that, the same difference of logits); `cuda` says how the graph for CUDA is run, where
    there is one; `parity`, `metrics`, `record` and `export` (how the graph was made, and what that cost) are
    reports for people and gates, not read on the scoring path.
    """

    model: str
    version: int
    architecture: str
    created_at: str
    schema_fingerprint: str
    tasks: tuple[str, ...]
    fusion: Mapping[str, float]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    golden_tolerance: float
    calibration: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cuda: CudaGraph | None = None
    parity: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    export: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Write the manifest as stable, indented JSON."""
        tree = {"format": FORMAT, **asdict(self)}
        return (json.dumps(tree, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, text: bytes) -> BundleManifest:
        """Read a manifest. Raises UnsupportedFormat for another format, CorruptBundle for a broken one."""
        try:
            tree = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise CorruptBundle(f"{MANIFEST}: not valid JSON: {error}") from error
        found = tree.pop("format", None) if isinstance(tree, dict) else None
        if found not in READABLE:
            raise UnsupportedFormat(
                f"{MANIFEST}: format is {found!r}, this version reads {', '.join(READABLE)}; export again"
            )
        try:
            tree["inputs"] = _specs(tree["inputs"])
            tree["outputs"] = _specs(tree["outputs"])
            tree["tasks"] = tuple(_typed(tree, "tasks", list))
            tree["files"] = {name: FileEntry(**entry) for name, entry in tree["files"].items()}
            if tree.get("cuda") is not None:
                tree["cuda"] = CudaGraph.from_json(_typed(tree, "cuda", dict))
            manifest = cls(**tree)
            _check_types(manifest)
            Calibration.of(manifest.calibration, manifest.tasks)
            return manifest
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise CorruptBundle(f"{MANIFEST}: incomplete or altered: {error}") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _specs(entries: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    specs = tuple(TensorSpec(e["name"], e["dtype"], tuple(e["dims"])) for e in entries)
    for spec in specs:
        _each([spec.name, spec.dtype], str, "tensor")
        _each(spec.dims, (str, int), f"dims of {spec.name}")
    return specs


def _check_types(manifest: BundleManifest) -> None:
    found = vars(manifest)
    for name in ("model", "architecture", "created_at", "schema_fingerprint"):
        _typed(found, name, str)
    for name in ("version", "opset"):
        _typed(found, name, int)
    _typed(found, "golden_tolerance", (int, float))
    for name in ("fusion", "calibration", "parity", "metrics", "record", "export"):
        _typed(found, name, dict)
    _each(manifest.tasks, str, "tasks")
    _each(manifest.fusion.values(), (int, float), "fusion")
    _each((entry.bytes for entry in manifest.files.values()), int, "files.bytes")
    _each((entry.sha256 for entry in manifest.files.values()), str, "files.sha256")
    for number in (manifest.golden_tolerance, *manifest.fusion.values()):
        if not abs(number) <= sys.float_info.max:
            raise ValueError("golden_tolerance and fusion hold finite numbers")
    if not MODEL_NAME.fullmatch(manifest.model):  # it names folders, also those that are written
        raise ValueError("model is no name")
    # These go out with answers, so a lone surrogate here would break them all.
    "".join((manifest.model, manifest.architecture, manifest.created_at, *manifest.tasks)).encode()


def _typed(found: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    _each([found[name]], kind, name)
    return found[name]


def _each(values: Iterable[object], kind: type | tuple[type, ...], name: str) -> None:
    for value in values:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TypeError(f"{name} is a {type(value).__name__}")
