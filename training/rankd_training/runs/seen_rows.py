"""Whether rows were learned from: a sketch of the training rows that other rows are held against.

Of the hashes of all training rows the smallest are kept, which are a sample of the distinct rows (the k
minimum values of Bar-Yossef et al., 2002, "Counting Distinct Elements in a Data Stream"). Of any other rows,
those whose hash is as small must be among them, if they were trained on. Two rows are alike where all fields,
as they are encoded, and all labels are equal.

Legend: n rows, N rows asked about, k hashes that are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from rankd_contract.hashing import hash_ints
from rankd_training.errors import RunError
from rankd_training.examples.examples import Examples

__all__ = ["SeenRows", "Share"]

FILE, _HASHES = "seen.safetensors", "hashes"
KEPT = 1 << 16
FEWEST = 200  # rows that can be compared: of fewer, a share is a guess, unless there are no more
_NUMBERS_AT_ONCE = 1 << 23
_MARGIN, _SURE = 0.05, 3.0  # of the rows; standard errors

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Share:
    """A share of rows, and of how many it was told: few, and it is a rough one."""

    value: float
    of: int

    def beyond(self, usual: float) -> bool:
        """Whether it is above a usual share by five points, and by more than chance."""
        chance = _SURE * math.sqrt(max(usual * (1 - usual), 1 / self.of) / self.of)
        return self.value > usual + max(_MARGIN, chance)


@dataclass(frozen=True, slots=True)
class SeenRows:
    """The smallest hashes of some rows, ascending, none twice; all where there are fewer than KEPT."""

    hash_k: Hashes

    @classmethod
    def of(cls, examples: Examples, row_n: npt.NDArray[np.int64]) -> SeenRows:
        """Remember rows."""
        smallest = np.zeros(0, np.uint64)
        for found in _hashes(examples, row_n):
            smallest = np.unique(np.concatenate([smallest, found]))[:KEPT]
        return cls(smallest)

    def share(self, examples: Examples, row_N: npt.NDArray[np.int64]) -> Share | None:
        """Return the share of other rows that are alike to one of these; None: too few are comparable."""
        comparable = known = 0
        for found in _hashes(examples, row_N):
            if len(self.hash_k) == KEPT:
                found = found[found <= self.hash_k[-1]]  # noqa: PLW2901
            comparable += len(found)
            known += int(np.isin(found, self.hash_k).sum())
        if comparable < min(FEWEST, len(row_N)) or not comparable:
            return None
        return Share(known / comparable, comparable)

    def save(self, folder: Path) -> None:
        """Write `seen.safetensors`."""
        save_file({_HASHES: self.hash_k}, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> SeenRows | None:
        """Read it; None in a run that kept none. Raises RunError where it cannot be read."""
        if not (folder / FILE).exists():
            return None
        try:
            return cls(load_file(folder / FILE)[_HASHES])
        except (SafetensorError, KeyError, OSError) as error:
            raise RunError(folder / FILE, f"cannot be read: {error}; train again") from error


def _hashes(examples: Examples, row_n: npt.NDArray[np.int64]) -> Iterator[Hashes]:
    """A hash of each row, some rows at once: of its numbers in turn, each mixed into what came before."""
    blocks = [array for block in examples.blocks.values() for array in (block.ids, block.values)]
    arrays = [array for array in (*blocks, examples.label_nT) if array.shape[1]]
    at_once = max(1, _NUMBERS_AT_ONCE // sum(array.shape[1] for array in arrays))
    for start in range(0, len(row_n), at_once):
        some_n = row_n[start : start + at_once]
        found = np.zeros(len(some_n), np.uint64)
        for array in arrays:
            for column in np.ascontiguousarray(array[some_n]).view(np.int32).T:
                found = hash_ints((found ^ column.astype(np.uint64)).view(np.int64))
        yield found
