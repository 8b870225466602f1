"""What 1, 2 and 4 processes hold of a model with a 500 MB table: in the graph, and beside it.

    python bench/shared_weights.py

Each process loads the graph as a service does and reads every row once. Prints the sum of their proportional
set sizes (Pss of smaps_rollup: a shared page counts by its share), which is what the machine has less. Linux.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from rankd_export.weights import write_apart
from rankd_service.inference.session import GraphSession
from rankd_service.settings import ProviderChoice

WIDTH, ROWS = 16, 500_000_000 // (4 * 16)
CHUNK = 100_000
PROCESSES = (1, 2, 4)

console = Console(width=120)


def save(folder: Path, *, apart: bool) -> Path:
    """Write a graph that sums the numbers of the rows it is given."""
    table = np.random.default_rng(0).random((ROWS, WIDTH), np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "in_rows"], ["rows"], axis=0),
            helper.make_node("ReduceSum", ["rows"], ["out_sum"], keepdims=0),
        ],
        "sum",
        [helper.make_tensor_value_info("in_rows", TensorProto.INT32, ["N"])],
        [helper.make_tensor_value_info("out_sum", TensorProto.FLOAT, [])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    folder.mkdir()
    if apart:
        write_apart(model, folder)
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def hold(path: Path) -> None:
    """Load, read every row, say so, and stay until standard input ends; then print the size."""
    session = GraphSession(path, 1, ProviderChoice.CPU)
    for start in range(0, ROWS, CHUNK):
        session.run(["out_sum"], {"in_rows": np.arange(start, min(ROWS, start + CHUNK), dtype=np.int32)})
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    (pss,) = [int(line.split()[1]) for line in lines if line.startswith("Pss:")]
    sys.stdout.write(f"{pss}\n")
    sys.stdout.flush()
    sys.stdin.readline()


def measured(path: Path, processes: int) -> int:
    """MiB of all of them together, taken while all of them live."""
    command = [sys.executable, __file__, "--hold", str(path)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        sizes = []
        for process in started:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            sizes.append(int(process.stdout.readline()))
        return round(sum(sizes) / 1024)
    finally:
        for process in started:
            process.communicate("\n", timeout=30)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hold", type=Path, help="be one of the processes")
    options = parser.parse_args()
    if options.hold is not None:
        hold(options.hold)
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, apart in (("in the graph", False), ("beside it", True)):
            path = save(Path(folder) / name.split()[0], apart=apart)
            found[name] = {n: measured(path, n) for n in PROCESSES}
            console.print(f"{name:14s}", {n: f"{mib} MiB" for n, mib in found[name].items()})
    console.print_json(json.dumps(found))


if __name__ == "__main__":
    main()
