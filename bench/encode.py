"""How fast are examples encoded, and in how much memory? 39 hashed fields, one core.

    python bench/encode.py                 # a million rows in memory, then mapped from files
    python bench/encode.py --rows 5000000 --mapped-only

Prints rows a second over the whole path (Parquet on disk to blocks), over encoding alone (the rows at hand
as Arrow batches), over reading alone, and the process's peak memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import pyarrow as pa
from rich.console import Console

from rankd_contract.encoding import Encoder
from rankd_contract.schema import Entity
from rankd_contract.schema_file import load_schema
from rankd_training.data.planted import PlantedConfig, write_planted
from rankd_training.data.row_files import BATCH_ROWS, ParquetRows
from rankd_training.examples import examples
from rankd_training.examples.columns import Piece

TARGET_ROWS_A_SECOND = 300_000

console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Generate rows where there are none, encode them, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--cardinality", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="what `rankd data generate` wrote; default: made anew")
    parser.add_argument("--mapped-only", action="store_true", help="so that the peak is that of mapped rows")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or write_planted(
            Path(scratch) / "rows", PlantedConfig(rows=options.rows, cardinality=options.cardinality)
        )
        schema = load_schema(folder / "schema.yaml")
        rows = ParquetRows(folder / "examples.parquet")
        console.print(f"{rows.num_rows:,} rows of {len(schema.fields)} fields, one core")
        before_mb = peak_mb()
        limits = {"mapped from files": 0} if options.mapped_only else {"in memory": 1 << 40, "mapped": 0}
        for name, limit in limits.items():
            started = time.perf_counter()
            found = examples.load_examples(
                folder, schema, in_memory_bytes=limit, cache=Path(scratch) / "cache"
            )
            show(name, len(found), time.perf_counter() - started)
        started = time.perf_counter()
        for _ in rows.batches(list(schema.fields)):
            pass
        show("reading alone", rows.num_rows, time.perf_counter() - started)
        batches = [b for _, b in zip(range(16), rows.batches(list(schema.fields)), strict=False)]
        encoder = Encoder(schema, Entity.ITEM)
        started = time.perf_counter()
        for batch in batches:
            examples.encoded(Piece(rows.path, 0, batch), encoder)
        show("encoding alone", sum(map(len, batches)), time.perf_counter() - started)
        encoded_mb = rows.num_rows * 4 * len(schema.fields) / 2**20
        console.print(
            f"peak memory {peak_mb():,.0f} MB, {peak_mb() - before_mb:,.0f} MB above the start; the encoded "
            f"fields are {encoded_mb:,.0f} MB, a piece of {BATCH_ROWS:,} rows "
            f"{BATCH_ROWS * 4 * len(schema.fields) / 2**20:.1f} MB"
        )


def peak_mb() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def show(name: str, rows: int, seconds: float) -> None:
    """Print one line."""
    speed = rows / seconds
    console.print(f"{name:20} {speed:12,.0f} rows/s  {speed / TARGET_ROWS_A_SECOND:5.2f} of the target")


if __name__ == "__main__":
    main()
