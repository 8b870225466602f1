"""What a bundle says of its graph for CUDA: in which numbers candidates come, in how many bits, how near.

A CUDA graph is captured for fixed sizes, so requests are filled up to one of a few sizes, the buckets, and
what is too large for the largest is scored in pieces: a score does not depend on the candidates beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

__all__ = ["BUCKETS", "CudaGraph", "check_buckets"]

BUCKETS = (64, 256, 512, 1024, 2048)
"""Candidates a run, where nothing else is asked for."""
_MOST_BUCKETS = 16
_LARGEST = 1 << 16


@dataclass(frozen=True, slots=True)
class CudaGraph:
    """The CUDA graph of one bundle.

    Attributes:
        precision: what its numbers are; exponentials and logits are float32 in each.
        buckets: how many candidates a run may have, ascending.
        golden_tolerance: how far a score near one half on a device may lie from the recorded one, the
            model's; others as `score_tolerance.py` says.
        onnxruntime: whose kernels it was checked against.
        operators: how many contrib operators it has, by name.
        parity: how near it is on the CPU provider, a report.
        lost: what fewer bits lose by task, a report; nothing of float32.
    """

    precision: str
    buckets: tuple[int, ...]
    golden_tolerance: float
    onnxruntime: str
    operators: Mapping[str, int] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    lost: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> CudaGraph:
        """Read it. Raises ValueError or TypeError where it is not one."""
        made = cls(**{**tree, "buckets": tuple(tree["buckets"])})
        for name, kind in (("precision", str), ("onnxruntime", str), ("golden_tolerance", (int, float))):
            _expect(tree, name, kind)
        for name in {"operators", "parity", "lost"} & tree.keys():
            _expect(tree, name, dict)
        if not 0 <= made.golden_tolerance < 1:
            raise ValueError(f"cuda.golden_tolerance is {made.golden_tolerance}, expected 0 to 1")
        check_buckets(made.buckets)
        return made

    def pieces(self, candidates: int) -> Iterator[tuple[int, int, int]]:
        """Cut a request -> where each piece starts and stops, and the bucket that it is filled up to."""
        largest = self.buckets[-1]
        for start in range(0, candidates, largest):
            stop = min(candidates, start + largest)
            yield start, stop, next(size for size in self.buckets if size >= stop - start)


def _expect(tree: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> None:
    value = tree[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"cuda.{name} is a {type(value).__name__}")


def check_buckets(buckets: Sequence[int]) -> None:
    """Raise ValueError where these are no sizes to capture."""
    whole = all(type(size) is int and 0 < size <= _LARGEST for size in buckets)
    if not whole or not 0 < len(buckets) <= _MOST_BUCKETS or any(a >= b for a, b in pairwise(buckets)):
        raise ValueError(
            f"buckets {list(buckets)}: expected 1 to {_MOST_BUCKETS} whole numbers, ascending, "
            f"from 1 to {_LARGEST}"
        )
