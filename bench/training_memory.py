"""How much memory training with a table of 2 GB takes: `rankd train` as a user starts it, two epochs of it.

    python bench/training_memory.py

Prints the largest resident set of the process beside table + optimiser state + 1.5 GB, and writes
docs/results/training-memory.json. The table has 39 fields of 800,000 rows, width 16.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

REPOSITORY = Path(__file__).resolve().parent.parent
FIELDS, WIDTH, BATCH, STEPS = 39, 16, 4096, 10
ALLOWANCE_GB = 1.5
# Numbers of state a row: two moments or one sum, and the step at which it was last moved.
STATE = {"deferred_adam": 2 * WIDTH + 1, "rowwise_adagrad": 2}


def write_data(folder: Path, rows: int) -> None:
    """Write examples and a schema with `rows` hash buckets a field."""
    rng = np.random.default_rng(5)
    n = (STEPS + 2) * BATCH
    columns = {f"f{k}": rng.integers(0, 2**40, n) for k in range(FIELDS)}
    split = ["train"] * (STEPS * BATCH) + ["valid"] * BATCH + ["test"] * BATCH
    pq.write_table(
        pa.table({**columns, "click": rng.random(n) < 0.3, "split": split}), folder / "examples.parquet"
    )
    fields = [f"{{name: f{k}, kind: categorical, dtype: int64, hash: {rows}}}" for k in range(FIELDS)]
    user, item = ", ".join(fields[:13]), ", ".join(fields[13:])
    (folder / "schema.yaml").write_text(
        "rankd_schema: 1\nname: bench\nviews:\n"
        f"  - {{name: user, entity: user, key: f0, fields: [{user}]}}\n"
        f"  - {{name: item, entity: item, key: f13, fields: [{item}]}}\n"
        "tasks: [{name: click}]\n",
        encoding="utf-8",
    )


def peak_gb(folder: Path, optimiser: str) -> float:
    """Train in a process of its own and return its largest resident set."""
    told = [
        "--examples",
        "examples.parquet",
        "--schema",
        "schema.yaml",
        "--output",
        optimiser,
        "--model",
        "dcnv2",
    ]
    settings = [f"embedding_optimiser={optimiser}", f"batch_size={BATCH}", "epochs=2", "precision=bfloat16"]
    command = [
        sys.executable,
        "-m",
        "rankd.cli",
        "train",
        *told,
        *(f"--set={setting}" for setting in settings),
    ]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return used.ru_maxrss / 1e6


def main() -> None:
    """Measure every optimiser that goes row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=800_000, help="rows a field")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "docs" / "results")
    told = parser.parse_args()
    table_gb = FIELDS * (told.rows + 2) * WIDTH * 4 / 1e9
    found = {}
    with tempfile.TemporaryDirectory() as place:
        write_data(Path(place), told.rows)
        for optimiser, numbers in STATE.items():
            state_gb = table_gb * numbers / WIDTH
            peak, allowed = peak_gb(Path(place), optimiser), table_gb + state_gb + ALLOWANCE_GB
            found[optimiser] = {"state_gb": state_gb, "allowed_gb": allowed, "peak_gb": peak}
            sys.stdout.write(f"{optimiser}: peak {peak:.2f} GB, allowed {allowed:.2f} GB\n")
    result = {"command": "python bench/training_memory.py", "table_gb": table_gb, "by_optimiser": found}
    (told.results / "training-memory.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
