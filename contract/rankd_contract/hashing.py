"""Stable 64-bit hashes of ids, over whole columns at once.

Strings: FNV-1a 64 of the UTF-8 bytes, then the 64-bit finaliser of MurmurHash3 (FNV alone leaves the
high bits of short ids alike). Integers: the same finaliser of the value. Both are salted by XOR with a
seed. The golden vectors in tests/contract/golden/hashing.json are part of the format: rows in stores
and buckets in trained tables depend on every bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_STRING_BYTES", "Strings", "bucket", "hash_ints", "hash_strings", "salt"]

MAX_STRING_BYTES = 1024
"""Longest string a column may hold: hashing takes a step a byte, so one long text would hold up a request."""

UInt64 = NDArray[np.uint64]

_FNV_OFFSET = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT = np.uint64(33)
_ALL_BITS = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Strings:
    """n strings as Arrow keeps them: one run of UTF-8 bytes and n + 1 offsets into it."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of strings."""
        return len(self.offsets) - 1

    @classmethod
    def from_list(cls, strings: Sequence[str]) -> Strings:
        """Lay out Python strings; the loop over them runs in C where all are ASCII."""
        joined = "".join(strings)
        if joined.isascii():
            data, lengths = joined.encode(), map(len, strings)
        else:
            encoded = [s.encode() for s in strings]
            data, lengths = b"".join(encoded), map(len, encoded)
        offsets = np.zeros(len(strings) + 1, np.int64)
        np.cumsum(np.fromiter(lengths, np.int64, len(strings)), out=offsets[1:])
        return cls(np.frombuffer(data, np.uint8), offsets)


def hash_strings(strings: Strings, seed: int = 0) -> UInt64:
    """Hash n strings -> uint64 [n]. Work is one numpy step per byte position, not per string."""
    if len(strings) == 1:
        return np.array([_hash_one(strings.data[slice(*strings.offsets)].tobytes(), seed)], np.uint64)
    starts, lengths = strings.offsets[:-1], np.diff(strings.offsets)
    h = np.full(len(strings), _FNV_OFFSET ^ np.uint64(seed))
    longest = int(lengths.max(initial=0))
    shortest = int(lengths.min(initial=longest)) if len(lengths) else 0
    for position in range(longest):
        if position < shortest:
            h = (h ^ strings.data[starts + position]) * _FNV_PRIME
        else:
            live = np.flatnonzero(lengths > position)
            h[live] = (h[live] ^ strings.data[starts[live] + position]) * _FNV_PRIME
    return _finalise(h)


def _hash_one(data: bytes, seed: int) -> int:
    """Hash one string without numpy, whose calls cost more than the work: a user's id is always alone."""
    h = int(_FNV_OFFSET) ^ seed
    for byte in data:
        h = (h ^ byte) * int(_FNV_PRIME) & _ALL_BITS
    h = (h ^ h >> 33) * int(_MIX_1) & _ALL_BITS
    h = (h ^ h >> 33) * int(_MIX_2) & _ALL_BITS
    return h ^ h >> 33


def hash_ints(values: NDArray[np.int64], seed: int = 0) -> UInt64:
    """Hash n integers -> uint64 [n]."""
    return _finalise(values.astype(np.int64, copy=False).view(np.uint64) ^ _FNV_OFFSET ^ np.uint64(seed))


@cache
def salt(name: str) -> int:
    """Seed for a field, so that equal values in two fields fall into unrelated buckets."""
    return int(hash_strings(Strings.from_list([name]))[0])


def bucket(hashes: UInt64, num_buckets: int) -> NDArray[np.int32]:
    """Reduce hashes to 0..num_buckets-1 -> int32 [n]."""
    return (hashes % np.uint64(num_buckets)).astype(np.int32)


def _finalise(h: UInt64) -> UInt64:
    h = (h ^ (h >> _SHIFT)) * _MIX_1
    h = (h ^ (h >> _SHIFT)) * _MIX_2
    return h ^ (h >> _SHIFT)
