"""How good are the models on MovieLens-100k? Trains each with several seeds and writes what came out.

    python bench/movielens.py
    python bench/movielens.py --data movielens-synthetic

Settings are the presets, which were chosen on the validation split; the test split is only reported. Writes
docs/results/DATA.md and .json. Takes two to three minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from rankd_contract.encoding import Block
from rankd_contract.signature import tensors
from rankd_training import checkpoint
from rankd_training.data import catalog
from rankd_training.examples import load_examples
from rankd_training.intervals import auc_difference, user_auc_difference
from rankd_training.models import registry
from rankd_training.presets import preset
from rankd_training.recipes.ctr import RunResult, train
from rankd_training.settings import TrainSettings

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
MEASURES = {
    "auc": "AUC",
    "user_auc": "AUC per user",
    "log_loss": "log loss",
    "calibration_error": "ECE",
}

console = Console()


def main() -> None:
    """Train, print the table, write both files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="movielens-100k", choices=catalog.names())
    parser.add_argument(
        "--root", type=Path, default=None, help="where data sets lie; default: the user's cache"
    )
    # Those whose settings were searched with the same care; a comparison with others would not be fair.
    parser.add_argument("--models", nargs="+", default=["mlcc", "dcnv2", "lr"], choices=registry.names())
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--date", default=datetime.now(UTC).date().isoformat(), help="of the measurement")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the two files")
    options = parser.parse_args()

    folder = catalog.get(options.data, root=options.root)
    jobs = [(model, seed) for model in options.models for seed in options.seeds]
    results: dict[str, list[RunResult]] = {model: [] for model in options.models}
    with tempfile.TemporaryDirectory() as scratch:
        for model, seed in track(jobs, "training", console=console, transient=True):
            settings = TrainSettings(
                examples=folder / "examples.parquet",
                schema=catalog.describe(options.data).schema,
                output=Path(scratch) / f"{model}-{seed}",
                model=model,
                seed=seed,
                **preset(options.data, model),
            )
            results[model].append(train(settings))

        report = summary(options.data, options.date, options.seeds, results)
        report["differences"] = differences(folder / "examples.parquet", results)
    console.print(table(report))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.data}.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (options.out / f"{options.data}.md").write_text(markdown(report), encoding="utf-8")


def summary(data: str, date: str, seeds: list[int], results: dict[str, list[RunResult]]) -> dict[str, Any]:
    """Everything both files say: mean and standard deviation over seeds by model, split and task."""
    runs = next(iter(results.values()))
    return {
        "data": data,
        "examples_sha256": runs[0].record.examples_sha256,
        "rows": dict(runs[0].record.rows),
        "base_rate": {
            split: {task: found.base_rate for task, found in by_task.items()}
            for split, by_task in runs[0].metrics.items()
        },
        "date": date,
        "command": shlex.join(["python", "bench/movielens.py", *_public(sys.argv[1:])]),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "scikit-learn", "rankd")},
        },
        "seeds": seeds,
        "models": {
            model: {
                "settings": preset(data, model),
                "parameters": runs[0].record.parameters,
                "best_epochs": [run.record.best_epoch for run in runs],
                "training_s": [round(sum(e.duration_s for e in run.record.epochs), 1) for run in runs],
                "metrics": {
                    split: {
                        task: {measure: _spread(runs, split, task, measure) for measure in MEASURES}
                        for task in runs[0].metrics[split]
                    }
                    for split in runs[0].metrics
                },
            }
            for model, runs in results.items()
        },
    }


def differences(examples_path: Path, results: dict[str, list[RunResult]]) -> list[dict[str, Any]]:
    """Test AUC of the first model minus each other's, with intervals over users."""
    first, *others = results
    schema = checkpoint.load(results[first][0].folder).schema
    examples = load_examples(examples_path, schema)
    rows = examples.rows["test"]
    blocks = {e: Block(block.ids[rows], block.values[rows]) for e, block in examples.blocks.items()}
    features = {n: torch.from_numpy(a) for n, a in tensors(blocks, np.arange(len(rows))).items()}
    with torch.no_grad():
        logits = {m: [checkpoint.load(run.folder)(features).numpy() for run in results[m]] for m in results}
    found = []
    for t, task in enumerate(schema.tasks):
        for other in others:
            pair = [[logit_NT[:, t] for logit_NT in logits[model]] for model in (first, other)]
            given = (examples.label_nT[rows, t], *pair, examples.group_n[rows])
            found.append(
                {
                    "task": task.name,
                    "models": [first, other],
                    "auc": asdict(auc_difference(*given)),
                    "user_auc": asdict(user_auc_difference(*given)),
                }
            )
    return found


def table(report: dict[str, Any]) -> Table:
    """Test metrics for the screen."""
    shown = Table(title=f"{report['data']}, test split, mean of {len(report['seeds'])} seeds")
    shown.add_column("task")
    shown.add_column("model")
    for title in MEASURES.values():
        shown.add_column(title, justify="right")
    for row in _rows(report, "test"):
        shown.add_row(*row)
    return shown


def markdown(report: dict[str, Any]) -> str:
    """Write the page that a reader of the repository sees."""
    rows = report["rows"]
    machine, versions = report["machine"], report["versions"]
    lines = [
        f"# Results on {report['data']}",
        "",
        f"`{report['command']}`, {report['date']}, {machine['cores']} cores of {machine['cpu']} "
        f"({machine['system']}), " + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".",
        "",
        f"Split in time: {rows['train']:,} training, {rows['valid']:,} validation, {rows['test']:,} test "
        "rows. Settings were chosen on validation alone, with the same care for each model, and so is the "
        f"epoch. Mean and standard deviation over seeds {', '.join(map(str, report['seeds']))}. "
        "Higher is better for AUC, lower for log loss and calibration error (ECE).",
    ]
    for split in ("test", "valid"):
        lines += ["", f"## {'Test' if split == 'test' else 'Validation'}", ""]
        lines += _markdown_table(["task", "model", *MEASURES.values()], _rows(report, split))
    lines += [
        "",
        "## Differences on test",
        "",
        "Mean over seeds, with the middle 95 % of 300 paired resamples of the test split's users. Where an "
        "interval holds zero, these users cannot tell the two apart.",
        "",
    ]
    lines += _markdown_table(
        ["task", "models", "AUC", "AUC per user"],
        [
            [
                entry["task"],
                " − ".join(entry["models"]),
                _interval(entry["auc"]),
                _interval(entry["user_auc"]),
            ]
            for entry in report["differences"]
        ],
    )
    lines += ["", "## Settings", ""]
    lines += _markdown_table(
        ["model", "parameters", "best epochs", "training, s", "settings"],
        [
            [
                name,
                f"{model['parameters']:,}",
                ", ".join(map(str, model["best_epochs"])),
                ", ".join(map(str, model["training_s"])),
                f"`{json.dumps(model['settings'])}`",
            ]
            for name, model in report["models"].items()
        ],
    )
    lines += ["", f"Examples: SHA-256 `{report['examples_sha256']}`."]
    return "\n".join(lines) + "\n"


def _rows(report: dict[str, Any], split: str) -> list[list[str]]:
    tasks = report["base_rate"][split]
    return [
        [task, name, *(_words(model["metrics"][split][task][measure]) for measure in MEASURES)]
        for task in tasks
        for name, model in report["models"].items()
    ]


def _words(spread: dict[str, Any]) -> str:
    return f"{spread['mean']:.4f} ± {spread['std']:.4f}"


def _interval(found: dict[str, float]) -> str:
    return f"{found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})"


def _markdown_table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _spread(runs: list[RunResult], split: str, task: str, measure: str) -> dict[str, Any]:
    values = [getattr(run.metrics[split][task], measure) for run in runs]
    return {
        "mean": statistics.mean(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "values": values,
    }


def _public(arguments: list[str]) -> list[str]:
    """The command's arguments without the places of this machine."""
    kept, skip = [], False
    for argument in arguments:
        if argument in {"--root", "--out"}:
            skip = True
        elif skip:
            skip = False
        else:
            kept.append(argument)
    return kept


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or "an unnamed processor"
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else "an unnamed processor"


if __name__ == "__main__":
    main()
