"""Golden requests: inputs with the scores they must give, kept in the bundle and replayed at load."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rankd_contract.signature import SCORES
from rankd_export.parity import Request

__all__ = ["to_npz"]


def to_npz(requests: Sequence[Request], scores: Sequence[NDArray[np.float32]]) -> bytes:
    """Store request k as arrays `r{k}/{input name}` and its scores [N, T] as `r{k}/out_scores`."""
    arrays = {}
    for k, (request, expected) in enumerate(zip(requests, scores, strict=True)):
        arrays.update({f"r{k}/{name}": np.asarray(array) for name, array in request.items()})
        arrays[f"r{k}/{SCORES}"] = expected.astype(np.float32)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
