"""Feature rows from a Parquet file into the store, in bulk: checked first, then streamed batch by batch.

Ids and event times of the whole file are checked before the first row is written. A value that does not fit
its field stops the import where it stands; rows are replaced whole, so it can be run again once mended.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankd_contract.columns import Column
from rankd_contract.encoding import Block, Encoder
from rankd_contract.errors import ValueTypeError
from rankd_contract.hashing import Strings
from rankd_contract.keys import key_prefix
from rankd_contract.packing import RowFormat
from rankd_contract.schema import MISSING, FeatureSchema, FeatureView, FieldLayout
from rankd_service.errors import StoreUnavailable
from rankd_service.features.embedded import SNAPSHOT
from rankd_service.features.redis_connection import BlockingConnection, pack
from rankd_service.features.view_file import ViewFile

__all__ = ["ImportReport", "import_rows"]

_ROWS_A_COMMAND = 1024  # longer commands keep a server from its readers
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What was written: rows, bytes of packed rows, how long it took, and nulls by field."""

    rows: int
    bytes: int
    seconds: float
    rows_per_s: float
    nulls: Mapping[str, int]


def import_rows(
    parquet: Path,
    schema: FeatureSchema,
    view: FeatureView,
    url: str,
    *,
    namespace: str = "rankd",
    ttl_s: float | None = None,
    batch_rows: int = 16_384,
    progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Write one row an entity, under the keys the service reads. `progress` gets rows done and rows in all.

    The file needs the view's key column (integers or strings), its event time (a timestamp, or whole seconds
    since 1970) and a column for each field's source. An embedded server is asked to keep what was written.

    Raises SchemaMismatch for a missing column, ValueTypeError for a value that does not fit (file and row are
    named, rows counted from 0), StoreUnavailable where the store fails, StartupFailed for no file or address.
    """
    started, done = time.perf_counter(), 0
    with _errors_in(parquet), ViewFile(parquet, view, batch_rows) as file:
        hashes, packer = file.hashes(), _Packer(schema, view)
        with closing(_Writer(url, key_prefix(namespace, schema, view), ttl_s)) as writer:
            for batch in file.batches():
                times_ms = file.event_times_ms(batch, done)
                rows = packer.pack(batch, hashes[done : done + len(batch)], times_ms, done)
                writer.write(file.ids(batch), rows)
                done += len(batch)
                if progress is not None:
                    progress(done, len(hashes))
            writer.finish()
    seconds = time.perf_counter() - started
    nulls = {field.name: packer.nulls[field.name] for field in view.fields}
    return ImportReport(done, done * packer.row_bytes, seconds, done / seconds, nulls)


@contextmanager
def _errors_in(parquet: Path) -> Iterator[None]:
    try:
        yield
    except ValueTypeError as error:
        raise error.in_file(str(parquet)) from error


class _Packer:
    """Encodes and packs batches of one view's columns."""

    def __init__(self, schema: FeatureSchema, view: FeatureView) -> None:
        self._view, self._format = view, RowFormat(schema, view)
        self._encoder = Encoder(schema, view.entity)
        own = [f for f in self._encoder.layout.fields if f.view == view.name]
        self._fields = [_shifted(f, own[0]) for f in own]
        self.row_bytes = self._format.row_bytes
        self.nulls: Counter[str] = Counter()

    def pack(
        self, batch: Any, hashes: NDArray[np.uint64], times_ms: NDArray[np.int64], first_row: int
    ) -> list[bytes]:
        """Encode and pack one Arrow record batch -> its rows."""
        block = Block(
            np.full((len(batch), self._view.num_ids), MISSING, np.int32),
            np.full((len(batch), self._view.num_values), np.nan, np.float32),
        )
        try:
            for at in self._fields:
                column = Column.from_arrow(batch.column(at.field.source), at.field)
                self._encoder.encode_field(at, column, block, slice(None))
                self.nulls[at.field.name] += _num_nulls(column)
        except ValueTypeError as error:
            raise error.from_row(first_row) from error
        return self._format.pack(block, hashes, times_ms)


class _Writer:
    """Sends rows ahead of the replies: the server stores one batch while the next one is encoded."""

    def __init__(self, url: str, prefix: str, ttl_s: float | None) -> None:
        self._connection = BlockingConnection(url, _TIMEOUT_S)
        self._prefix, self._ttl_ms = prefix, None if ttl_s is None else max(1, round(1000 * ttl_s))
        self._awaited = 0

    def write(self, ids: Sequence[str], rows: Sequence[bytes]) -> None:
        """Send rows, once the replies to the rows before are in."""
        keys = [self._prefix + entity_id for entity_id in ids]
        commands = _msets(keys, rows) if self._ttl_ms is None else _sets(keys, rows, self._ttl_ms)
        self._drain()
        self._connection.send(b"".join(commands))
        self._awaited = len(commands)

    def finish(self) -> None:
        """Wait for the last replies, and have an embedded server keep the rows."""
        self._drain()
        self._connection.send(pack("CONFIG", "GET", "dbfilename"))
        try:
            embedded = self._connection.receive() == [b"dbfilename", SNAPSHOT.encode()]
        except StoreUnavailable:
            return  # a server that shows us no configuration is not ours
        if embedded:
            self._connection.send(pack("SAVE"))
            self._connection.receive()

    def close(self) -> None:
        self._connection.close()

    def _drain(self) -> None:
        for _ in range(self._awaited):
            self._connection.receive()
        self._awaited = 0


def _msets(keys: Sequence[str], rows: Sequence[bytes]) -> list[bytes]:
    commands = []
    for start in range(0, len(keys), _ROWS_A_COMMAND):
        chunk = slice(start, start + _ROWS_A_COMMAND)
        pairs: list[str | bytes] = [*keys[chunk], *keys[chunk]]
        pairs[0::2], pairs[1::2] = keys[chunk], rows[chunk]
        commands.append(pack("MSET", *pairs))
    return commands


def _sets(keys: Sequence[str], rows: Sequence[bytes], ttl_ms: int) -> list[bytes]:
    return [pack("SET", key, row, "PX", ttl_ms) for key, row in zip(keys, rows, strict=True)]


def _shifted(at: FieldLayout, first: FieldLayout) -> FieldLayout:
    """Move a field from its place among its entity's columns to its place in its view's row."""
    ids, values = first.ids.start, first.values.start
    return FieldLayout(
        at.field,
        at.view,
        slice(at.ids.start - ids, at.ids.stop - ids),
        slice(at.values.start - values, at.values.stop - values),
    )


def _num_nulls(column: Column) -> int:
    missing = ~column.valid
    if column.offsets is None and not isinstance(column.values, Strings):
        missing = missing | np.isnan(column.values)
    return int(missing.sum())
