"""Where encoded rows are put: into memory, or into files that are mapped where memory would not hold them.

Rows arrive in order, some thousands at a time, so files are written from front to back and encoding needs no
more memory than one piece, whatever the number of rows. A folder of arrays appears whole or not at all.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

import numpy as np
import numpy.typing as npt

__all__ = ["ArraySpec", "InFiles", "InMemory", "Sink", "load_arrays"]

_RECORD = "encoded.json"


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """An array of n rows: its numpy dtype, and its width where it has two dimensions."""

    dtype: str
    width: int | None = None

    def shape(self, num_rows: int) -> tuple[int, ...]:
        """Of the whole array."""
        return (num_rows,) if self.width is None else (num_rows, self.width)


class Sink(Protocol):
    """Takes the rows of named arrays, piece by piece, and gives the whole."""

    def append(self, name: str, rows: npt.NDArray[Any]) -> None:
        """Take the next rows of one array."""

    def finish(self) -> Mapping[str, npt.NDArray[Any]]:
        """Every array, complete and writable."""


class InMemory:
    """Keeps arrays of a known number of rows in memory."""

    def __init__(self, specs: Mapping[str, ArraySpec], num_rows: int) -> None:
        self._arrays = {name: np.empty(spec.shape(num_rows), spec.dtype) for name, spec in specs.items()}
        self._done = dict.fromkeys(specs, 0)

    def append(self, name: str, rows: npt.NDArray[Any]) -> None:
        """Take the next rows of one array."""
        start = self._done[name]
        self._done[name] = start + len(rows)
        self._arrays[name][start : start + len(rows)] = rows

    def finish(self) -> Mapping[str, npt.NDArray[Any]]:
        """Every array, complete and writable."""
        return self._arrays


class InFiles:
    """Writes arrays of a known number of rows beside `folder`, and lets it appear when they are complete.

    Use as a context manager: what was not finished is removed. Raises OSError where the disk is full.
    """

    def __init__(self, folder: Path, specs: Mapping[str, ArraySpec], num_rows: int) -> None:
        self._folder, self._specs, self._num_rows = folder, specs, num_rows
        self._staging = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        self._staging.mkdir(parents=True)
        self._files: dict[str, BinaryIO] = {}
        for name, spec in specs.items():
            file = self._files[name] = (self._staging / f"{name}.npy").open("wb")
            header = {"descr": spec.dtype, "fortran_order": False, "shape": spec.shape(num_rows)}
            np.lib.format.write_array_header_2_0(file, header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()
        shutil.rmtree(self._staging, ignore_errors=True)

    def append(self, name: str, rows: npt.NDArray[Any]) -> None:
        """Take the next rows of one array."""
        if rows.size:  # an array of width 0 has a header only
            self._files[name].write(np.ascontiguousarray(rows, self._specs[name].dtype).data.cast("B"))

    def finish(self) -> Mapping[str, npt.NDArray[Any]]:
        """Close the files, put the folder in its place, map them."""
        for file in self._files.values():
            file.close()
        names = {name: spec.shape(self._num_rows) for name, spec in self._specs.items()}
        (self._staging / _RECORD).write_text(json.dumps({"arrays": names}) + "\n", encoding="utf-8")
        try:
            self._staging.replace(self._folder)
        except OSError:
            if not self._folder.exists():  # another process may have been faster; its arrays are the same
                raise
        found = load_arrays(self._folder, self._specs, self._num_rows)
        assert found is not None
        return found


def load_arrays(
    folder: Path, specs: Mapping[str, ArraySpec], num_rows: int
) -> Mapping[str, npt.NDArray[Any]] | None:
    """Map the arrays of a folder that `InFiles` finished; None where it has not, or holds others."""
    if not (folder / _RECORD).is_file():
        return None
    arrays = {}
    for name, spec in specs.items():
        shape = spec.shape(num_rows)
        if 0 in shape:  # an empty file cannot be mapped
            arrays[name] = np.empty(shape, spec.dtype)
            continue
        # Copy on write: writable, as tensors must be, while the files stay as they are.
        arrays[name] = np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)
        if arrays[name].shape != shape or arrays[name].dtype != np.dtype(spec.dtype):
            return None
    return arrays
