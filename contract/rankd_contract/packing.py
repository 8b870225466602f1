"""The packed feature row: one entity's view as one binary value.

Little-endian, every part 8-byte aligned:

    bytes  0..3   magic "RKDF"
           4..5   format (1)             6..7   length of the row in 8-byte words
           8..15  row fingerprint       16..23  hash of the entity's id
          24..31  event time, milliseconds since 1970
          32..    int32 ids, then float32 values, zero-padded to 8 bytes
          last 8  checksum

The checksum is multilinear: the sum modulo 2^64 of each 32-bit word times its own odd 64-bit weight
(Lemire and Kaser, "Strongly universal string hashing is fast", 2012). Odd weights that differ from each
other, also in sign, modulo 2^33 make every one- and two-bit flip visible, and n rows cost one expression.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from rankd_contract.encoding import Block
from rankd_contract.schema import FeatureSchema, FeatureView

__all__ = ["FORMAT", "FeatureStatus", "RowFormat"]

FORMAT = 1
_MAGIC = int.from_bytes(b"RKDF", "little")
_HEADER_WORDS = 4


class FeatureStatus(IntEnum):
    """What became of a value that was read; the names are also metric labels."""

    PRESENT = 0
    NULL_VALUE = 1
    NOT_FOUND = 2
    OUTSIDE_MAX_AGE = 3
    DEFAULTED = 4
    STALE_L1 = 5
    TIMED_OUT = 6
    CORRUPT = 7
    FOREIGN = 8
    MISMATCH = 9


class RowFormat:
    """Packs and unpacks the rows of one view. Immutable; safe to share between threads."""

    def __init__(self, schema: FeatureSchema, view: FeatureView) -> None:
        """Fix the layout of the view's rows under the schema."""
        self.view = view
        self.fingerprint = schema.row_fingerprint(view)
        self.num_ids, self.num_values = view.num_ids, view.num_values
        payload_words = (self.num_ids + self.num_values + 1) // 2
        self.row_words = _HEADER_WORDS + payload_words + 1
        self.row_bytes = 8 * self.row_words
        self._lead = np.uint64(_MAGIC | FORMAT << 32 | self.row_words << 48)
        self._weights = _weights(2 * (self.row_words - 1))

    def pack(
        self, block: Block, entity_hashes: NDArray[np.uint64], event_times_ms: NDArray[np.int64]
    ) -> list[bytes]:
        """Pack n encoded rows (missing values kept as id 0 and NaN) -> n byte strings of `row_bytes`."""
        n = len(block)
        words = np.zeros((n, self.row_words), np.uint64)
        words[:, 0] = self._lead
        words[:, 1] = self.fingerprint
        words[:, 2] = entity_hashes
        words[:, 3] = event_times_ms.astype(np.int64).view(np.uint64)
        halves = words.view(np.uint32)
        ids_at, values_at = 2 * _HEADER_WORDS, 2 * _HEADER_WORDS + self.num_ids
        halves[:, ids_at:values_at] = block.ids.view(np.uint32)
        halves[:, values_at : values_at + self.num_values] = block.values.view(np.uint32)
        words[:, -1] = self._checksum(words)
        return words.view(f"V{self.row_bytes}").ravel().tolist()

    def unpack(
        self,
        rows: Sequence[bytes | None],
        entity_hashes: NDArray[np.uint64],
        out: Block,
        out_event_times_ms: NDArray[np.int64],
    ) -> NDArray[np.uint8]:
        """Unpack n rows, as a store returned them, into `out` (n rows of this view's columns).

        Only rows that are whole, ours, of this layout and of the entity asked for are written; the others
        keep what `out` held. Returns a FeatureStatus for each row, uint8 [n]: PRESENT, NOT_FOUND, CORRUPT
        (length, magic, checksum or a number that is infinite), MISMATCH (format or fingerprint), FOREIGN.
        """
        lengths = np.fromiter(map(operator.length_hint, rows), np.int64, len(rows))
        statuses = np.full(len(rows), FeatureStatus.CORRUPT, np.uint8)
        whole, odd = np.flatnonzero(lengths == self.row_bytes), np.flatnonzero(lengths != self.row_bytes)
        statuses[[i for i in odd.tolist() if rows[i] is None]] = FeatureStatus.NOT_FOUND
        kept = [rows[i] for i in whole.tolist()] if odd.size else rows
        joined = b"".join(kept)  # type: ignore[arg-type]  # a None has no length of a row
        words = np.frombuffer(joined, np.uint64).reshape(len(whole), self.row_words)

        halves = words.view(np.uint32)
        ids_at, values_at = 2 * _HEADER_WORDS, 2 * _HEADER_WORDS + self.num_ids
        ids = halves[:, ids_at:values_at].view(np.int32)
        values = halves[:, values_at : values_at + self.num_values].view(np.float32)

        sound = (words[:, -1] == self._checksum(words)) & (words[:, 0] & 0xFFFFFFFF == _MAGIC)
        infinite = np.isinf(values)
        if infinite.any():
            sound &= ~infinite.any(axis=1)
        same_layout = (words[:, 0] == self._lead) & (words[:, 1] == self.fingerprint)
        same_entity = words[:, 2] == entity_hashes[whole]
        statuses[whole] = np.select(
            [~sound, ~same_layout, ~same_entity],
            [FeatureStatus.CORRUPT, FeatureStatus.MISMATCH, FeatureStatus.FOREIGN],
            FeatureStatus.PRESENT,
        )
        good = sound & same_layout & same_entity
        if good.all() and len(whole) == len(rows):
            out.ids[:], out.values[:], out_event_times_ms[:] = ids, values, words[:, 3].view(np.int64)
        else:
            to = whole[good]
            out.ids[to], out.values[to] = ids[good], values[good]
            out_event_times_ms[to] = words[good, 3].view(np.int64)
        return statuses

    def _checksum(self, words: NDArray[np.uint64]) -> NDArray[np.uint64]:
        halves = (
            words[:, :-1].view(np.uint32)
            if words.flags.c_contiguous
            else words[:, :-1].copy().view(np.uint32)
        )
        return np.asarray(np.einsum("nw,w->n", halves, self._weights, dtype=np.uint64, casting="safe"))


def _weights(n: int) -> NDArray[np.uint64]:
    """Return n odd weights: the first n outputs of SplitMix64 from seed 0, made odd. Part of the format."""
    x = (np.arange(1, n + 1, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) | np.uint64(1)
