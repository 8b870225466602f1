"""Repeating each number of a row as a matrix product: many short copies are what a runtime is slow at.

Exact: every product is with 0 or 1, and all but one addend are zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["each_repeated", "row_repeated"]


def row_repeated(width: int, times: int) -> Tensor:
    """Matrix [width, times width] that puts a whole row as often beside itself."""
    return torch.eye(width).repeat(1, times)


def each_repeated(width: int, times: int) -> Tensor:
    """Matrix [width, width times] that repeats each number in its place."""
    return torch.eye(width).repeat_interleave(times, dim=1)
