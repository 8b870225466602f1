"""OptInter's graph hashes crosses as the model does, to the last bit, and scores alike at every size."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from rankd_contract.pair_hash import HashedPair, pair_row
from rankd_export.graph import OPSET
from rankd_training.layers.pair_hash import PairHash
from rankd_training.models.optinter import OptInter, OptInterConfig
from tests.export.agreement import assert_agrees, traced
from tests.export.test_graph import MIXED

VARIANTS: list[dict[str, Any]] = [
    {"cross_rows": 100},
    {"methods": ("city*sku=memorise", "past*price=factorise"), "cross_rows": 100},
    {"methods": ("income*city=factorise",)},
    {"methods": ()},
]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_graph_and_model_agree_at_every_size(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = OptInter(MIXED, OptInterConfig(**{"embedding_std": 0.5, **settings})).eval()
    graph = traced(model, MIXED)
    assert_agrees(model, graph, MIXED)


class _Hashed(nn.Module):
    def __init__(self, pairs: list[HashedPair]) -> None:
        super().__init__()
        self.hash = PairHash(pairs)

    def forward(self, in_ids: Tensor) -> Tensor:
        rows: Tensor = self.hash(in_ids[:, 0], in_ids[:, 1])
        return rows


def test_the_runtime_hashes_the_largest_ids_as_numpy_does() -> None:
    biggest = 2**31 - 1
    pairs = [HashedPair("a*b", biggest, biggest, 10**7), HashedPair("c*d", 30, 40, 10**4)]
    ids = torch.ones(3, 2, 2, dtype=torch.int64)
    program = torch.onnx.export(
        _Hashed(pairs).eval(),
        (ids,),
        dynamo=True,
        opset_version=OPSET,
        dynamic_shapes={"in_ids": {0: Dim("N", min=1, max=1 << 20)}},
        verbose=False,
    )
    assert program is not None
    session = ort.InferenceSession(
        program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(0)
    left = np.stack([rng.integers(pair.left_ids, size=5000) for pair in pairs], 1)
    right = np.stack([rng.integers(pair.right_ids, size=5000) for pair in pairs], 1)
    left[:2], right[:2] = 0, [[biggest - 1, 39]] * 2
    left[1] = [biggest - 1, 29]
    (found,) = session.run(None, {"in_ids": np.stack([left, right], 1)})
    expected = [pair_row(pair, left[:, at], right[:, at]) for at, pair in enumerate(pairs)]
    np.testing.assert_array_equal(found, np.stack([expected[0], expected[1] + pairs[0].num_rows], 1))
