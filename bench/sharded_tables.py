"""What sharing a table of 1 GB between two processes saves in memory and costs in time, on loopback.

    pip install --no-deps -r training/requirements-torchrec.txt
    python bench/sharded_tables.py

Each run is `rankd train --shard-tables` under torchrun, two epochs of DCNv2 over 39 fields of 400,000 rows,
width 16, and the same without sharing. A process reports the largest resident set of its life. What a run
needs without its table is measured by the same run with 100 rows a field. Writes
docs/results/sharded-tables.json and .md.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from torch import distributed
from training_memory import BATCH, FIELDS, STATE, STEPS, WIDTH, write_data

from rankd_training.recipes import ctr
from rankd_training.settings import TrainSettings

REPOSITORY = Path(__file__).resolve().parent.parent
PROCESSES, RUNS = 2, 3
COMMAND = "python bench/sharded_tables.py"


class Heard:
    """Hears how fast the last epoch's steps went."""

    rows_per_s = 0.0

    def run_started(
        self, *, model: str, parameters: int, stop_on: str, epochs: int, steps_per_epoch: int
    ) -> None:
        """Nothing of it is wanted."""

    def epoch_started(self, epoch: int) -> None:
        """Nothing of it is wanted."""

    def step(self, step: int, loss: float, rows_per_s: float) -> None:
        """Keep the epoch's mean so far."""
        self.rows_per_s = rows_per_s

    def epoch_ended(
        self, epoch: int, loss: float, valid_auc: Mapping[str, float], *, score: float, best: bool
    ) -> None:
        """Nothing of it is wanted."""


def work(optimiser: str, sharding: str) -> None:
    """Train as one of the processes, in the folder of the examples, and leave what it took."""
    settings = TrainSettings(
        examples=Path("examples.parquet"),
        schema=Path("schema.yaml"),
        output=Path(f"{optimiser}-{sharding}"),
        model="dcnv2",
        embedding_optimiser=optimiser,  # type: ignore[arg-type]  # one of STATE
        embedding_sharding=sharding,  # type: ignore[arg-type]  # none or row_wise
        batch_size=BATCH,
        epochs=2,
    )
    distributed.init_process_group("gloo")
    heard = Heard()
    result = ctr.train(settings, progress=heard)
    took = {
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "rows_per_s": heard.rows_per_s,
        "losses": [epoch.loss for epoch in result.record.epochs],
    }
    Path(f"{optimiser}-{sharding}.{distributed.get_rank()}.json").write_text(json.dumps(took))
    distributed.destroy_process_group()


def run(folder: Path, optimiser: str, sharding: str) -> dict[str, Any]:
    """Train in processes of their own -> what each took."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}"]
    command = [*launch, str(Path(__file__).resolve()), "--work", optimiser, sharding]
    shutil.rmtree(folder / f"{optimiser}-{sharding}", ignore_errors=True)
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    took = [
        json.loads((folder / f"{optimiser}-{sharding}.{rank}.json").read_text()) for rank in range(PROCESSES)
    ]
    return {
        "peak_gb": [each["peak_gb"] for each in took],
        "rows_per_s": took[0]["rows_per_s"],  # the first process hears
        "losses": took[0]["losses"],
    }


def over_all(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put equal runs together: the highest peaks, the median speed."""
    return {
        "peak_gb": [max(peaks) for peaks in zip(*(run["peak_gb"] for run in runs), strict=True)],
        "rows_per_s": median(run["rows_per_s"] for run in runs),
        "losses": runs[0]["losses"],
    }


def measure(rows: int) -> dict[str, Any]:
    """Every row rule, shared, whole, and without a table to speak of."""
    table_gb = FIELDS * (rows + 2) * WIDTH * 4 / 1e9
    found: dict[str, Any] = {}
    for optimiser, numbers in STATE.items():
        with tempfile.TemporaryDirectory() as small, tempfile.TemporaryDirectory() as large:
            write_data(Path(small), 100)
            base = run(Path(small), optimiser, "row_wise")
            write_data(Path(large), rows)
            runs = [[run(Path(large), optimiser, kind) for kind in ("none", "row_wise")] for _ in range(RUNS)]
        whole, shared = map(over_all, zip(*runs, strict=True))
        state_gb = table_gb * numbers / WIDTH
        found[optimiser] = {
            "state_gb": state_gb,
            "without_table": base,
            "whole": whole,
            "shared": shared,
            "allowed_gb": (table_gb + state_gb) / PROCESSES + max(base["peak_gb"]),
        }
        sys.stdout.write(f"{optimiser}: {json.dumps(found[optimiser])}\n")
    return {"command": COMMAND, "table_gb": table_gb, "steps": STEPS, "batch": BATCH, "by_optimiser": found}


def page(result: dict[str, Any]) -> str:
    """Put the figures into words."""
    lines = []
    for optimiser, found in result["by_optimiser"].items():
        whole, shared = found["whole"], found["shared"]
        peaks = [
            " and ".join(f"{gb:.2f}" for gb in part["peak_gb"])
            for part in (found["without_table"], whole, shared)
        ]
        share_gb = (result["table_gb"] + found["state_gb"]) / PROCESSES
        gap = max(abs(a - b) for a, b in zip(whole["losses"], shared["losses"], strict=True))
        cells = [optimiser, *peaks, f"{share_gb:.2f}", f"{shared['rows_per_s'] / whole['rows_per_s']:.2f}"]
        lines.append(f"| {' | '.join(cells)} | {gap:.0e} |")
    return (
        "# Tables that processes share\n\n"
        f"A table of {result['table_gb']:.2f} GB ({FIELDS} fields, width {WIDTH}), DCNv2, "
        f"{result['steps']} steps of {result['batch']} rows an epoch, two processes on one machine of two "
        f"cores; `{result['command']}`. Peak memory is the largest resident set of each process, in GB.\n\n"
        "| table trained by | peak without a table | each holds all of it | each holds half | "
        "half the table and its state | speed, times | losses differ by |\n"
        "|---|---|---|---|---|---|---|\n" + "\n".join(lines) + "\n\n"
        "Speed is rows a second in the second epoch's steps, shared to whole, medians of "
        f"{RUNS} runs in turn: a step sends rows to who reads them and gradients to who holds them, where "
        "whole tables send every process's rows and gradients to all.\n"
    )


def main() -> None:
    """Measure, or be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000, help="rows a field")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "docs" / "results")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.work:
        work(*told.work)
        return
    result = measure(told.rows)
    (told.results / "sharded-tables.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (told.results / "sharded-tables.md").write_text(page(result), encoding="utf-8")


if __name__ == "__main__":
    main()
