"""Encoding takes as much memory as a piece of the rows and what is kept of each, not as the rows do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rankd_training.data.planted import PlantedConfig, write_planted

ROWS = 2_000_000
ENCODED_MB = ROWS * 39 * 4 / 2**20

PROGRAM = """
import sys
from pathlib import Path
from rankd_contract.schema_file import load_schema
from rankd_training.examples.examples import load_examples

def peak_kb():
    # Not getrusage: its peak outlives exec, so it would be the test runner's.
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1])

folder, limit = Path(sys.argv[1]), int(sys.argv[2])
schema = load_schema(folder / "schema.yaml")
before = peak_kb()
load_examples(folder, schema, in_memory_bytes=limit, cache=folder / "cache")
print((peak_kb() - before) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_rows_that_are_mapped_are_encoded_in_bounded_memory(tmp_path: Path) -> None:
    folder = write_planted(tmp_path / "rows", PlantedConfig(rows=ROWS, cardinality=2000))

    def peak_mb(limit: int) -> float:
        command = [sys.executable, "-c", PROGRAM, str(folder), str(limit)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
        return float(done.stdout)

    assert peak_mb(1 << 40) > ENCODED_MB, "held in memory, the rows show"
    assert peak_mb(0) < ENCODED_MB / 2
    assert peak_mb(0) < ENCODED_MB / 4, "and mapping what is there already reads labels and splits only"
