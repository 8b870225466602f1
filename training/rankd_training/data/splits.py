"""Who is trained on, who is stopped by, who is judged: splits in time, and by a hash of the row.

A cut in time judges a model on what happened after everything it has seen. It is global, not one per user: at
serving time nobody's future is known either. Rows are counted, so the shares hold exactly; rows of the same
second are ordered by the tie breakers and then by position. A split by hash is for rows that know no time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rankd_contract.hashing import hash_ints, salt
from rankd_training.errors import SettingError

__all__ = ["SPLIT", "SPLIT_NAMES", "SplitPlan", "temporal_split"]

SPLIT = "split"  # the column that says which
SPLIT_NAMES = ("train", "valid", "test")
DEFAULT = "80/10/10"
_PERCENT, _LARGEST_RATIO = 100.0, 20.0

Codes = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """How rows that name no split are dealt out.

    Attributes:
        shares: of train, valid and test; they sum to 1.
        time_column: the latest rows are `test`, those before them `valid`; None deals by row.
        seed: of the hash of a row's number, where there is no time.
    """

    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    time_column: str | None = None
    seed: int = 0

    @classmethod
    def chosen(cls, text: str | None, time_column: str | None, seed: int) -> Self | None:
        """The plan that settings ask for; None where they ask for none. Raises SettingError."""
        if text is None and time_column is None:
            return None
        return cls.parse(text or DEFAULT, time_column=time_column, seed=seed)

    @classmethod
    def parse(cls, text: str, *, time_column: str | None = None, seed: int = 0) -> Self:
        """Read shares such as `80/10/10`. Raises SettingError."""
        try:
            parts = [float(part) for part in text.split("/")]
            train, valid, test = (part / sum(parts) for part in parts)
        except (ValueError, ZeroDivisionError):
            raise SettingError(f"split {text!r}: expected three shares, such as 80/10/10") from None
        if sum(parts) > _LARGEST_RATIO and round(sum(parts), 6) != _PERCENT:
            problem = f"these are percent that sum to {sum(parts):g}"
            raise SettingError(f"split {text!r}: expected three shares, such as 80/10/10 or 8/1/1; {problem}")
        if not min(train, valid, test) > 0:  # so that NaN is refused too
            raise SettingError(f"split {text!r}: expected three shares above 0, such as 80/10/10")
        return cls((train, valid, test), time_column, seed)

    def __str__(self) -> str:
        shares = "/".join(f"{100 * share:g}" for share in self.shares)
        if self.time_column is not None:
            return f"{shares} by time, column '{self.time_column}'"
        return f"{shares} by a hash of the row's number, seed {self.seed}"

    def codes(self, num_rows: int, time_N: npt.NDArray[np.int64] | None) -> Codes:
        """Deal out N rows -> 0 for train, 1 for valid, 2 for test."""
        train, valid, test = self.shares
        if self.time_column is not None:
            assert time_N is not None
            return _by_time(time_N, (), valid, test)
        seed = salt(f"split {self.seed}")
        at_N = hash_ints(np.arange(num_rows), seed) / 2.0**64
        return np.searchsorted([train, train + valid], at_N, side="right").astype(np.int8)


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
    code_N = _by_time(time_N, tie_breakers, valid_share, test_share)
    return pa.array(np.asarray(SPLIT_NAMES)[code_N], type=pa.string())


def _by_time(
    time_N: npt.NDArray[np.int64],
    tie_breakers: Sequence[npt.NDArray[np.int64]],
    valid_share: float,
    test_share: float,
) -> Codes:
    num_rows = len(time_N)
    num_test = int(num_rows * test_share)
    num_valid = int(num_rows * valid_share)
    # lexsort takes its most significant key last and is stable, so position is the final tie breaker.
    order_N = np.lexsort((*reversed(tie_breakers), time_N))
    code_N = np.zeros(num_rows, dtype=np.int8)
    code_N[order_N[num_rows - num_test - num_valid :]] = 1
    code_N[order_N[num_rows - num_test :]] = 2
    return code_N
