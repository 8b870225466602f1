"""Rows of one view, decoded, with what is known of each beside its columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankd_contract.encoding import Block

__all__ = ["ViewRows"]

Places = NDArray[np.intp] | NDArray[np.bool_] | slice


@dataclass(frozen=True, slots=True)
class ViewRows:
    """n rows: their columns, event times int64 [n] in milliseconds since 1970, and stamps int64 [n].

    A stamp is the near cache's name for a row that it keeps, 0 where it keeps none (`near_cache.py`).
    """

    block: Block
    times_ms: NDArray[np.int64]
    stamps: NDArray[np.int64]

    def at(self, places: Places) -> ViewRows:
        """Return the rows at some places, copied."""
        block = Block(self.block.ids[places], self.block.values[places])
        return ViewRows(block, self.times_ms[places], self.stamps[places])

    def put(self, places: Places, rows: ViewRows) -> None:
        """Copy rows to some places."""
        self.block.ids[places], self.block.values[places] = rows.block.ids, rows.block.values
        self.times_ms[places], self.stamps[places] = rows.times_ms, rows.stamps
