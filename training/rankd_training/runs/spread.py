"""Tensors whose rows lie spread over the processes of a run, and the files that one of them writes.

A file does not tell: it is what a single process would have written, and any number of processes can read
it. The rows of others pass through the first process piece by piece; it never holds more than its own.

Legend: H rows held here, R rows of all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from rankd_training.errors import RunError

__all__ = ["Spread", "hand_over", "write"]

_NAMES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True, slots=True)
class Spread:
    """One tensor.

    Attributes:
        held_H: the rows held here.
        start: the first of them.
        num_rows: R.
        in_turn: called with the rows held here, by all processes at once, gives the first one the rows of
            all, piece by piece, and the others nothing.
    """

    held_H: Tensor
    start: int
    num_rows: int
    in_turn: Callable[[Tensor], Iterator[Tensor]]

    @property
    def shape(self) -> list[int]:
        """Of the whole tensor."""
        return [self.num_rows, *self.held_H.shape[1:]]

    @property
    def offset(self) -> int:
        """Bytes of the whole tensor before the rows held here."""
        return self.start * self.held_H[:1].nbytes


def write(path: Path, tensors: Mapping[str, Tensor | Spread]) -> None:
    """Write a safetensors file, as the first process; meanwhile the others `hand_over` theirs.

    Raises RunError, or OSError where the tensors are spread, if it cannot be written.
    """
    whole = {name: tensor.contiguous() for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
    if len(whole) == len(tensors):
        try:
            save_file(whole, path)
        except SafetensorError as error:  # a full disk, most of all
            raise RunError(path, f"cannot be written: {error}") from error
        return
    header, end = {}, 0
    for name in sorted(tensors):
        tensor = tensors[name]
        held, shape = (tensor.held_H, tensor.shape) if isinstance(tensor, Spread) else (tensor, tensor.shape)
        begin, end = end, end + math.prod(shape) * held.element_size()
        header[name] = {"dtype": _NAMES[held.dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in sorted(tensors):
            tensor = tensors[name]
            pieces = tensor.in_turn(tensor.held_H) if isinstance(tensor, Spread) else iter([whole[name]])
            for piece in pieces:
                if piece.numel():
                    array: Any = piece.detach().contiguous().numpy().reshape(-1)
                    file.write(memoryview(array).cast("B"))


def hand_over(*files: Mapping[str, Tensor | Spread]) -> None:
    """Give the first process, which writes some files in this order, the rows held here."""
    for tensors in files:
        for name in sorted(tensors):
            tensor = tensors[name]
            if isinstance(tensor, Spread):
                for _ in tensor.in_turn(tensor.held_H):
                    raise AssertionError("only the first process is given rows")
