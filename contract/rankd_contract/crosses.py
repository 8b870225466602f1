"""Ids of a schema's crosses, in plain numpy: what every graph computes for itself from the ids it is given.

A cross has the ids of any field: 0 where one of its two fields is missing, else 1 where one is unknown,
else 2 plus the row of its combination of values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rankd_contract.pair_hash import pair_row
from rankd_contract.schema import FIRST_VALUE, UNKNOWN, Cross, FeatureSchema

__all__ = ["cross_ids"]


def cross_ids(
    schema: FeatureSchema, cross: Cross, left_n: NDArray[np.int32], right_n: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Ids of the cross from those of its two fields, in the cross's order; ids out of range are unknown."""
    counts = [schema.cardinality(schema.fields[name]) for name in cross.of]
    left, right = (
        np.where((id_n >= 0) & (id_n < count), id_n, UNKNOWN).astype(np.int64)
        for id_n, count in zip((left_n, right_n), counts, strict=True)
    )
    lower_n = np.minimum(left, right)
    row_n = pair_row(schema.hashed_pair(cross), left - FIRST_VALUE, right - FIRST_VALUE)
    return np.where(lower_n < FIRST_VALUE, lower_n, row_n + FIRST_VALUE).astype(np.int32)
