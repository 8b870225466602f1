"""What an exported graph saves over the same model eager, compiled and exported as the paper prints it.

    python bench/export.py            # ten minutes on one core
    python bench/export.py --only parity

One thread, 500 candidates of one user, all ways in turns within one run; ratios count, the microseconds
depend on the machine. Then the largest difference of every model's graph to the model, by ways to run it and
numbers of candidates. Writes docs/results/export.json and .md.

Weights are random, so nothing here says what a precision costs a trained model: `rankd export --precision`
does, on validation rows.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from bench.models import HISTORY, build, request_of, schema_of, tensors
from bench.naive import Naive, entmax_bisected, naive_onnx, tiled
from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import SCORES
from rankd_export.errors import GraphRefused
from rankd_export.graph import to_onnx
from rankd_export.precision import Precision, reduced
from rankd_export.work import work_of
from rankd_training.models import registry

REPOSITORY = Path(__file__).resolve().parent.parent
CANDIDATES, ROUNDS, RUNS = 500, 9, 20
SIZES = (1, 2, 7, 100, 1000)
# How much faster than the naive graph.
TARGETS = {"mlcc": 1.6, "armnet": 3.0, "infnet": 2.0}
TIMED = ("mlcc", "armnet", "infnet", "dcnv2")

Request = Mapping[str, NDArray[Any]]
Run = Callable[[], NDArray[np.float32]]

console = Console(width=160)


def session(graph: onnx.ModelProto, *, optimised: bool = True) -> ort.InferenceSession:
    """One thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def microseconds(run: Run) -> float:
    """Processor time of a run, the median of some: others may be at work on the machine."""
    taken = []
    for _ in range(RUNS):
        began = time.thread_time()
        run()
        taken.append(time.thread_time() - began)
    return 1e6 * statistics.median(taken)


def ways(name: str, schema: FeatureSchema, model: nn.Module) -> tuple[dict[str, Run], dict[str, Any]]:
    """Every way to score the same 500 candidates, ours first, and what there is to say of the graphs."""
    request = request_of(schema, CANDIDATES, 1, seed=3)
    features, repeated = tensors(request), tiled(request)
    example = tensors(request_of(schema, 6, 3, seed=1))
    ours = to_onnx(model, schema, example)
    plain = to_onnx(model, schema, example, fold=False)
    small = request_of(schema, 6, 1, seed=1)
    naive = naive_onnx(Naive(model), small)
    runs = {
        "ours": _of_session(session(ours), request),
        "ours, not folded": _of_session(session(plain), request),
        "naive graph": _of_session(session(naive), repeated),
        "torch, eager": _of_torch(model, features),
        "torch, compiled": _of_torch(torch.compile(model, dynamic=False), features),
    }
    if name == "armnet":  # what the authors' code does
        bisected = naive_onnx(Naive(model, entmax_bisected), small)
        runs["naive graph, entmax bisected"] = _of_session(session(bisected), repeated)
    nodes = {"ours": len(ours.graph.node), "naive graph": len(naive.graph.node)}
    return runs, {"nodes": nodes, "work": work_of(ours).to_json()}


def _of_session(made: ort.InferenceSession, request: Request) -> Run:
    return lambda: made.run([SCORES], dict(request))[0]


def _of_torch(model: Callable[..., Tensor], features: dict[str, Tensor]) -> Run:
    def run() -> NDArray[np.float32]:
        with torch.no_grad():
            scores: NDArray[np.float32] = torch.sigmoid(model(features)).numpy()
            return scores

    return run


def timed(name: str) -> dict[str, Any]:
    """Ratios to ours from alternating rounds, median and range."""
    schema = schema_of(name)
    runs, about = ways(name, schema, build(name, schema))
    truth = runs["torch, eager"]()
    differences = {way: float(np.abs(run() - truth).max()) for way, run in runs.items()}
    assert max(differences.values()) < 1e-5, differences
    for run in runs.values():
        for _ in range(5):
            run()
    rounds = [{way: microseconds(run) for way, run in runs.items()} for _ in range(ROUNDS)]
    rows = {}
    for way in runs:
        ratios = sorted(r[way] / r["ours"] for r in rounds)
        rows[way] = {
            "us": round(min(r[way] for r in rounds)),
            "ratio": round(statistics.median(ratios), 2),
            "range": [round(ratios[0], 2), round(ratios[-1], 2)],
            "difference": differences[way],
        }
        console.print(f"{name:8s} {way:30s} {rows[way]['us']:7d} us  {rows[way]['ratio']:5.2f}")
    met = name not in TARGETS or rows["naive graph"]["ratio"] >= TARGETS[name]
    return {"ways": rows, "target": TARGETS.get(name), "met": met, "spread": float(truth.std()), **about}


def parity(name: str) -> dict[str, Any]:
    """Largest difference of probabilities to torch, by way to run the graph and number of candidates."""
    schema = schema_of(name)
    model = build(name, schema)
    graph = to_onnx(model, schema, tensors(request_of(schema, 6, 3, seed=1)))
    sessions = {
        "cpu, portable": session(graph, optimised=False),
        "cpu, optimised": session(graph),
        **{precision: session(made) for precision, made in variants(graph).items()},
    }
    rows: dict[str, dict[str, float]] = {way: {} for way in sessions}
    for n in SIZES:
        request = request_of(schema, n, 1, seed=n)
        truth = _of_torch(model, tensors(request))()
        for way, made in sessions.items():
            rows[way][str(n)] = float(np.abs(_of_session(made, request)() - truth).max())
    console.print(f"{name:10s}", {way: f"{max(by.values()):.0e}" for way, by in rows.items()})
    return rows


def variants(graph: onnx.ModelProto) -> dict[str, onnx.ModelProto]:
    """The graph in fewer bits, as `rankd export --precision` makes it."""
    made = {}
    for precision in Precision:
        if precision is not Precision.FP32:
            with suppress(GraphRefused):  # nothing there to be reduced
                made[precision.value] = reduced(graph, precision)
    return made


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def text(found: Mapping[str, Any]) -> str:
    """Write the page."""
    parts = [
        "# Exported graphs beside other ways to run the same model",
        f"Measured {found['at']} on {found['machine']}, one thread, torch {found['torch']}, onnxruntime "
        f"{found['onnxruntime']}, by `python bench/export.py`: {CANDIDATES} candidates of one user, 20 "
        f"fields of which 8 are the user's, width 16 (ARM-Net 10), INFNet with two histories of {HISTORY}. "
        f"All ways in turns, {ROUNDS} rounds of {RUNS} runs, in processor time of the one thread; a ratio is "
        "time over the time of ours, the median and the range over rounds. The naive graph has one table a "
        "field, the user's row repeated for each candidate and the equations as they are printed; it comes "
        "from the same exporter and gives the same scores. Weights are random.",
    ]
    if "timed" in found:
        rows = []
        for name, result in found["timed"].items():
            for way, row in result["ways"].items():
                low, high = row["range"]
                target = result["target"] if way == "naive graph" else None
                said = "" if target is None else f"{target}: {'met' if result['met'] else 'missed'}"
                rows.append(
                    [name, way, str(row["us"]), f"{row['ratio']:.2f}", f"{low:.2f} to {high:.2f}", said]
                )
        parts.append(table(["model", "way", "us", "ratio", "range", "target"], rows))
        work = [
            [
                name,
                *(f"{result['work'][key]:,}" for key in ("per_candidate", "per_user", "per_candidate_tiled")),
            ]
            for name, result in found["timed"].items()
        ]
        parts += [
            "## Multiply-adds",
            table(["model", "a candidate", "a user", "a candidate, user repeated"], work),
        ]
    if "parity" in found:
        rows = [
            [name, way, *(f"{by[str(n)]:.1e}" for n in SIZES)]
            for name, result in found["parity"].items()
            for way, by in result.items()
        ]
        parts += [
            "## Largest difference to torch",
            "Of probabilities, by number of candidates; *portable* is the graph without the runtime's "
            "optimisations, the rest are what `rankd export --precision` makes of it. Large differences in "
            "fewer bits belong to random weights as much as to the bits.",
            table(["model", "way", *(f"N = {n}" for n in SIZES)], rows),
        ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["timed", "parity"])
    parser.add_argument("--models", nargs="*", default=list(TIMED))
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "results" / "export.json")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    before = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    found: dict[str, Any] = {
        "at": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {platform.system()}",
        "torch": torch.__version__,
        "onnxruntime": ort.__version__,
    }
    if options.only is not None:  # the other half stays
        found = before | found
    if options.only != "parity":
        found["timed"] = {name: timed(name) for name in options.models}
    if options.only != "timed":
        found["parity"] = {name: parity(name) for name in registry.names()}
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(text(found), encoding="utf-8")


if __name__ == "__main__":
    main()
