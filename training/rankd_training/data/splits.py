"""Splits in time: a model is judged on what happened after everything it has seen.

The cut is global, not one per user: at serving time nobody's future is known either. Rows are counted, so
the shares hold exactly; rows of the same second are ordered by the tie breakers and then by position.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

SPLIT_NAMES = ("train", "valid", "test")


def temporal_split(
    time_N: npt.NDArray[np.int64],
    *,
    tie_breakers: Sequence[npt.NDArray[np.int64]] = (),
    valid_share: float = 0.1,
    test_share: float = 0.1,
) -> pa.StringArray:
    """Name the split of each of N rows: the latest are `test`, those before them `valid`, the rest `train`.

    Args:
        time_N: when each row happened, in any unit.
        tie_breakers: further int64 arrays of length N, most significant first, that order rows of equal time.
        valid_share: share of all rows, rounded down.
        test_share: share of all rows, rounded down.

    Raises:
        ValueError: a share is negative, or the two leave nothing to train on.
    """
    if min(valid_share, test_share) < 0 or valid_share + test_share >= 1:
        raise ValueError(
            f"valid_share {valid_share} and test_share {test_share} must be 0 or more and sum to less than 1"
        )
    num_rows = len(time_N)
    num_test = int(num_rows * test_share)
    num_valid = int(num_rows * valid_share)
    # lexsort takes its most significant key last and is stable, so position is the final tie breaker.
    order_N = np.lexsort((*reversed(tie_breakers), time_N))
    code_N = np.zeros(num_rows, dtype=np.int8)
    code_N[order_N[num_rows - num_test - num_valid :]] = 1
    code_N[order_N[num_rows - num_test :]] = 2
    return pa.array(np.asarray(SPLIT_NAMES)[code_N], type=pa.string())
