"""Reads `golden.npz`, the recorded requests of a bundle, as a file that anybody may have written.

Every entry's size and header are checked before its first byte is unpacked: a few kilobytes of zip can stand
for gigabytes of zeros, and a header of a few bytes for an array that fits in no memory.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

__all__ = ["MAX_BYTES", "GoldenError", "read_golden"]

MAX_BYTES = 64 << 20  # unpacked, in all; export records four requests of at most 100 candidates
_MAX_ENTRIES = 4096
_TYPES = frozenset({"bool", "int32", "int64", "float32", "float64"})


class GoldenError(Exception):
    """The file holds no recorded requests; the message says what it holds instead."""


def read_golden(path: Path) -> Mapping[str, dict[str, NDArray[np.generic]]]:
    """Read the requests by name, each with its arrays by name (`request/array.npy` in the file).

    Raises GoldenError.
    """
    requests: dict[str, dict[str, NDArray[np.generic]]] = {}
    try:
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
            _check_sizes(entries)
            for entry in entries:
                request, _, name = entry.filename.removesuffix(".npy").partition("/")
                with file.open(entry) as stream:
                    requests.setdefault(request, {})[name] = _array(stream, entry)
    except GoldenError:
        raise
    except Exception as error:  # zip, zlib and numpy's header share no base, and raise a dozen others
        words = " ".join(str(error).split())
        raise GoldenError(f"cannot be read: {type(error).__name__}: {words}") from error
    return requests


def _check_sizes(entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > _MAX_ENTRIES:
        raise GoldenError(f"holds {len(entries)} arrays, at most {_MAX_ENTRIES} are read")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > MAX_BYTES:
        raise GoldenError(
            f"unpacks to {unpacked / 2**20:,.0f} MiB, at most {MAX_BYTES >> 20} MiB are read; "
            "record fewer or smaller requests"
        )


def _array(stream: IO[bytes], entry: zipfile.ZipInfo) -> NDArray[np.generic]:
    version = npy.read_magic(stream)
    if version not in {(1, 0), (2, 0)}:
        raise GoldenError(f"{entry.filename!r} is of NumPy's format {version}, (1, 0) and (2, 0) are read")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if dtype.hasobject or dtype.name not in _TYPES:
        raise GoldenError(f"{entry.filename!r} holds {dtype!s}, expected one of {', '.join(sorted(_TYPES))}")
    size, left = math.prod(shape) * dtype.itemsize, entry.file_size - stream.tell()
    if min(shape, default=0) < 0 or size != left:
        raise GoldenError(f"{entry.filename!r} holds {left} bytes of numbers, its header speaks of {size}")
    flat = np.frombuffer(stream.read(left), dtype)  # `read()` would unpack past what the entry claims
    return flat.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="), order="C")
