"""Whether rows were learned from: a sketch of the training rows that other rows are held against.

Of the hashes of all training rows the smallest are kept, which are a sample of the distinct rows (the k
minimum values of Bar-Yossef et al., 2002, "Counting Distinct Elements in a Data Stream"). Of any other rows,
those whose hash is as small must be among them, if they were trained on. Two rows are alike where all fields,
as they are encoded, and all labels are equal.

Legend: n rows, N rows asked about, k hashes that are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from rankd_contract.hashing import hash_ints
from rankd_training.errors import RunError
from rankd_training.examples.examples import Examples

__all__ = ["SeenRows"]

FILE, _HASHES = "seen.safetensors", "hashes"
KEPT = 1 << 16
_ROWS_AT_ONCE = 1 << 18

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class SeenRows:
    """The smallest hashes of some rows, ascending, none twice; all where there are fewer than KEPT."""

    hash_k: Hashes

    @classmethod
    def of(cls, examples: Examples, row_n: npt.NDArray[np.int64]) -> SeenRows:
        """Remember rows."""
        smallest = np.zeros(0, np.uint64)
        for start in range(0, len(row_n), _ROWS_AT_ONCE):
            found = _hashes(examples, row_n[start : start + _ROWS_AT_ONCE])
            smallest = np.unique(np.concatenate([smallest, found]))[:KEPT]
        return cls(smallest)

    def share(self, examples: Examples, row_N: npt.NDArray[np.int64]) -> float:
        """Return the share of other rows that are alike to one of these; exact where all are remembered."""
        comparable = known = 0
        for start in range(0, len(row_N), _ROWS_AT_ONCE):
            found = _hashes(examples, row_N[start : start + _ROWS_AT_ONCE])
            if len(self.hash_k) == KEPT:
                found = found[found <= self.hash_k[-1]]
            comparable += len(found)
            known += int(np.isin(found, self.hash_k).sum())
        return known / comparable if comparable else 0.0

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


def _hashes(examples: Examples, row_n: npt.NDArray[np.int64]) -> Hashes:
    """A hash of each row: of its numbers in turn, each mixed into what came before."""
    found = np.zeros(len(row_n), np.uint64)
    blocks = [array for block in examples.blocks.values() for array in (block.ids, block.values)]
    for array in (*blocks, examples.label_nT):
        bits = np.ascontiguousarray(array[row_n]).view(np.int32)
        for column in bits.T:
            found = hash_ints((found ^ column.astype(np.uint64)).view(np.int64))
    return found
