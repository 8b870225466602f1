"""What fbgemm's lookup with a fused optimiser costs on a CPU beside ours, which moves the same rows.

    pip install --no-deps -r training/requirements-torchrec.txt
    python bench/fused_rows.py

Row-wise Adagrad is the one rule that both have. 80,000 rows of 7.8 million, width 16, one thread: a batch is
read, gets its gradients and moves. TorchRec's EmbeddingCollection looks rows up as fbgemm's `NONE` does;
`SUM` is what its EmbeddingBagCollection would do with bags of one row. Prints medians of one run, and how
far the three tables are apart at its end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    EmbeddingLocation,
    SplitTableBatchedEmbeddingBagsCodegen,
)
from torch import Tensor, nn

from rankd_training.learning.ranks import ALONE
from rankd_training.learning.row_rules import ADAGRAD_EPS, RowwiseAdagrad
from rankd_training.learning.table_rows import TableRows

ROWS, WIDTH, READ, STEPS, RATE = 7_800_000, 16, 80_000, 12, 0.02

# Rows and the gradients of their vectors; moves the table.
Step = Callable[[Tensor, Tensor], None]


def fused(start_RE: Tensor, mode: PoolingMode) -> tuple[Tensor, Step]:
    """Return a table of fbgemm's that starts as `start_RE`, and its step."""
    lookup = SplitTableBatchedEmbeddingBagsCodegen(
        [(ROWS, WIDTH, EmbeddingLocation.HOST, ComputeDevice.CPU)],
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=RATE,
        eps=ADAGRAD_EPS,
        pooling_mode=mode,
    )
    table_RE = lookup.split_embedding_weights()[0]
    table_RE.copy_(start_RE)
    bags = torch.arange(READ + 1)
    return table_RE, lambda row_n, grad_nE: lookup(row_n, bags).backward(grad_nE)


def ours(start_RE: Tensor) -> tuple[Tensor, Step]:
    """Return a table of ours that starts as `start_RE`, and its step."""
    table = nn.Embedding(ROWS, WIDTH, _weight=start_RE.clone())
    rows = TableRows(table, RowwiseAdagrad(rate=RATE), keep=1.0, ranks=ALONE)

    def step(row_n: Tensor, grad_nE: Tensor) -> None:
        rows(row_n).backward(grad_nE)
        rows.step()

    return table.weight.detach(), step


def main() -> None:
    """Measure all three in turn."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    start_RE = torch.empty(ROWS, WIDTH).uniform_(-0.01, 0.01)
    made = {
        "ours": ours(start_RE),
        "fbgemm NONE": fused(start_RE, PoolingMode.NONE),
        "fbgemm SUM": fused(start_RE, PoolingMode.SUM),
    }
    took: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(STEPS):
        row_n, grad_nE = torch.randint(0, ROWS, (READ,)), torch.randn(READ, WIDTH)
        for name, (_, step) in made.items():
            began = perf_counter()
            step(row_n, grad_nE)
            took[name].append(perf_counter() - began)
    table_RE, _ = made["ours"]
    for name, (other_RE, _) in made.items():
        apart = float((other_RE - table_RE).abs().max())
        sys.stdout.write(f"{name}: {1e3 * median(took[name]):.1f} ms, apart from ours by {apart:.0e}\n")


if __name__ == "__main__":
    main()
