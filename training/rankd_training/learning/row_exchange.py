"""Rows of a table that lies spread over the processes, fetched and sent back by TorchRec.

TorchRec deals a batch's rows out to the processes that hold them and brings their vectors back; in the
backward pass the gradients go the same way, so a row's owner has the sum of all. What it does not do here is
to hold the rows and to move them: its kernels for CPUs (fbgemm) know Adagrad and SGD only, while the rules
of `row_rules.py`, among them the default, work on a process's own rows as they do on a whole table.

Needs training/requirements-torchrec.txt.

Legend: n places that a batch reads, U rows among them without repetition, A rows asked of this process.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torchrec.distributed.comm_ops import set_gradient_division
from torchrec.distributed.embedding import EmbeddingCollectionContext
from torchrec.distributed.embedding_sharding import KJTListSplitsAwaitable
from torchrec.distributed.sharding.rw_sequence_sharding import RwSequenceEmbeddingDist
from torchrec.distributed.sharding.rw_sharding import RwSparseFeaturesDist
from torchrec.distributed.sharding.sequence_sharding import SequenceShardingContext
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from rankd_training.layers.embedding import RowReader

__all__ = ["TorchRecExchange"]

_FEATURE = "rows"  # to TorchRec the table has one feature, and a batch is one list of it


class TorchRecExchange:
    """Reads of one table, row by row, in blocks of equal size in the processes' order.

    All processes of the default group call it equally often, each with rows of its own, or none.

    Args:
        num_rows: of the whole table.
    """

    def __init__(self, num_rows: int) -> None:
        set_gradient_division(False)  # gradients are sums here, TorchRec's are means over processes
        world, cpu = distributed.group.WORLD, torch.device("cpu")
        self._ask = RwSparseFeaturesDist(world, 1, [num_rows], device=cpu, is_sequence=True)
        self._answer = RwSequenceEmbeddingDist(world, 1, cpu)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # other processes are no part of a graph
    def __call__(self, rows: Tensor, here: RowReader) -> Tensor:
        """Rows of any shape -> their vectors; `here` reads rows counted from the first one held here."""
        row_U, place_n = torch.unique(rows.reshape(-1), return_inverse=True)
        asked = KeyedJaggedTensor([_FEATURE], row_U.long(), lengths=torch.tensor([len(row_U)]).int())
        context = EmbeddingCollectionContext()
        asking = self._ask(asked)
        context.sharding_contexts.append(
            SequenceShardingContext(
                features_before_input_dist=asked,
                unbucketize_permute_tensor=self._ask.unbucketize_permute_tensor,
            )
        )
        (wanted,) = KJTListSplitsAwaitable([asking], context).wait().wait()
        (shares,) = context.sharding_contexts
        shares.lengths_after_input_dist = wanted.lengths().view(-1, wanted.stride())
        vector_UE: Tensor = self._answer(here(wanted.values()), shares).wait()
        return vector_UE.index_select(0, place_n).view(*rows.shape, vector_UE.shape[1])
