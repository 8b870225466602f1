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
import struct
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
_HEADER = struct.Struct("<QQQq")  # magic with format and length, fingerprint, entity hash, event time


class FeatureStatus(IntEnum):
    """What became of a value that was read; the names are also metric labels.

    From CORRUPT on: there was a row, and it could not be read.
    """

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
        # The checksum itself weighs nothing, so that rows are summed whole.
        self._weights = np.append(_weights(2 * (self.row_words - 1)), np.zeros(2, np.uint64))

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
        if len(rows) == 1 and self._unpack_one(rows[0], int(entity_hashes[0]), out, out_event_times_ms):
            return np.zeros(1, np.uint8)
        if set(map(operator.length_hint, rows)) != {self.row_bytes}:
            return self._unpack_whole(rows, entity_hashes, out, out_event_times_ms)
        words = np.frombuffer(b"".join(rows), np.uint64).reshape(len(rows), self.row_words)  # type: ignore[arg-type]
        ids, values = self._payload(words)
        altered = words[:, -1] != self._checksum(words)
        not_ours = (words[:, 0] != self._lead) | (words[:, 1] != self.fingerprint)
        of_another = words[:, 2] != entity_hashes
        infinite = np.isinf(values)
        if not ((altered | not_ours | of_another).any() or infinite.any()):  # as nearly always
            out.ids[:], out.values[:], out_event_times_ms[:] = ids, values, words[:, 3].view(np.int64)
            return np.zeros(len(rows), np.uint8)
        corrupt = altered | infinite.any(axis=1) | (words[:, 0] & 0xFFFFFFFF != _MAGIC)
        statuses = np.select(
            [corrupt, not_ours, of_another],
            [FeatureStatus.CORRUPT, FeatureStatus.MISMATCH, FeatureStatus.FOREIGN],
            FeatureStatus.PRESENT,
        ).astype(np.uint8)
        good = statuses == FeatureStatus.PRESENT
        out.ids[good], out.values[good] = ids[good], values[good]
        out_event_times_ms[good] = words[good, 3].view(np.int64)
        return statuses

    def _unpack_one(
        self, row: bytes | None, entity_hash: int, out: Block, out_event_times_ms: NDArray[np.int64]
    ) -> bool:
        """Unpack a lone row that is as it should be; a user's always is alone, and numpy's calls add up."""
        if row is None or len(row) != self.row_bytes:
            return False
        lead, fingerprint, of_entity, time_ms = _HEADER.unpack_from(row)
        if (lead, fingerprint, of_entity) != (int(self._lead), self.fingerprint, entity_hash):
            return False
        words = np.frombuffer(row, np.uint64).reshape(1, self.row_words)
        ids, values = self._payload(words)
        if words[0, -1] != self._checksum(words)[0] or (self.num_values and np.isinf(values).any()):
            return False
        out.ids[:], out.values[:], out_event_times_ms[0] = ids, values, time_ms
        return True

    def _unpack_whole(
        self,
        rows: Sequence[bytes | None],
        entity_hashes: NDArray[np.uint64],
        out: Block,
        out_event_times_ms: NDArray[np.int64],
    ) -> NDArray[np.uint8]:
        """Set aside what is absent or has not a row's length, and unpack the others."""
        absent = [row is None for row in rows]
        statuses = np.where(absent, FeatureStatus.NOT_FOUND, FeatureStatus.CORRUPT).astype(np.uint8)
        whole = [i for i, row in enumerate(rows) if row is not None and len(row) == self.row_bytes]
        if whole:
            block, times_ms = Block(out.ids[whole], out.values[whole]), out_event_times_ms[whole]
            statuses[whole] = self.unpack([rows[i] for i in whole], entity_hashes[whole], block, times_ms)
            out.ids[whole], out.values[whole], out_event_times_ms[whole] = block.ids, block.values, times_ms
        return statuses

    def _payload(self, words: NDArray[np.uint64]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        halves = words.view(np.uint32)
        ids_at, values_at = 2 * _HEADER_WORDS, 2 * _HEADER_WORDS + self.num_ids
        ids = halves[:, ids_at:values_at].view(np.int32)
        return ids, halves[:, values_at : values_at + self.num_values].view(np.float32)

    def _checksum(self, words: NDArray[np.uint64]) -> NDArray[np.uint64]:
        sums: NDArray[np.uint64] = words.view(np.uint32).astype(np.uint64) @ self._weights
        return sums


def _weights(n: int) -> NDArray[np.uint64]:
    """Return n odd weights: the first n outputs of SplitMix64 from seed 0, made odd. Part of the format."""
    x = (np.arange(1, n + 1, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) | np.uint64(1)
