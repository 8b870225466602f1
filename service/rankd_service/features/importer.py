"""Feature rows from a Parquet file into the store, in bulk: checked first, then streamed batch by batch.

Ids and event times of the whole file are checked before the first row is written. A value that does not fit
its field stops the import where it stands; rows are replaced whole, so it can be run again once mended. One
that was cut short, by whatever it was, goes on where it stood (`import_mark.py`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankd_contract.columns import YEAR_10000_S, Column
from rankd_contract.encoding import Block, Encoder
from rankd_contract.errors import ValueTypeError
from rankd_contract.hashing import Strings
from rankd_contract.keys import key_prefix
from rankd_contract.packing import RowFormat
from rankd_contract.schema import MISSING, FeatureSchema, FeatureView, FieldLayout
from rankd_service.features.embedded import SNAPSHOT
from rankd_service.features.import_mark import ImportMark, file_digest
from rankd_service.features.redis_bulk import open_bulk
from rankd_service.features.view_file import ViewFile

__all__ = ["ImportReport", "import_rows"]

_TIMEOUT_S = 30.0
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What the store has now: rows, of which an earlier import wrote the first `resumed_at`, and their bytes.

    And what this one took: seconds, rows written a second, and nulls by field in the rows it wrote. `ahead`
    of these are dated more than a day after `now_s`, and so count as fresh for longer than they are.
    """

    rows: int
    resumed_at: int
    bytes: int
    seconds: float
    rows_per_s: float
    nulls: Mapping[str, int]
    ahead: int


def import_rows(  # noqa: PLR0913  # options are passed by name
    parquet: Path,
    schema: FeatureSchema,
    view: FeatureView,
    url: str,
    *,
    namespace: str = "rankd",
    ttl_s: float | None = None,
    batch_rows: int = 16_384,
    progress: Callable[[int, int], None] | None = None,
    resume: bool = True,
    now_s: float = YEAR_10000_S,
) -> ImportReport:
    """Write one row an entity, under the keys the service reads. `progress` gets rows done and rows in all.

    The file needs the view's key column (integers or strings), its event time (a timestamp, or whole seconds
    since 1970) and a column for each field's source. An embedded server is asked to keep what was written.
    With `resume`, an import of the same file that was cut short goes on behind the last row acknowledged.

    Raises SchemaMismatch for a missing column, ValueTypeError for a value that does not fit (file and row are
    named, rows counted from 0), StoreUnavailable where the store fails, StartupFailed for no file or address.
    """
    started = time.perf_counter()
    with _errors_in(parquet), ViewFile(parquet, view, batch_rows) as file:
        hashes, packer, ahead = file.hashes(), _Packer(schema, view), 0
        tomorrow_ms = int(1000 * now_s) + _DAY_MS
        prefix, ttl_ms = key_prefix(namespace, schema, view), None if ttl_s is None else _ms(ttl_s)
        with closing(open_bulk(url, _TIMEOUT_S)) as store:
            mark = ImportMark(store, namespace, schema, view, f"{file_digest(parquet)} {ttl_ms}")
            first = done = _first_row(mark, len(hashes)) if resume else 0
            if progress is not None:
                progress(done, len(hashes))
            for batch in file.batches(first):
                times_ms = file.event_times_ms(batch, done)
                ahead += int((times_ms > tomorrow_ms).sum())
                rows = packer.pack(batch, hashes[done : done + len(batch)], times_ms, done)
                store.drain()
                mark.note(done)  # now that they are acknowledged
                store.send([prefix + entity_id for entity_id in file.ids(batch)], rows, ttl_ms)
                done += len(batch)
                if progress is not None:
                    progress(done, len(hashes))
            store.drain()
            mark.clear()
            if store.is_embedded_as(SNAPSHOT):
                store.save()
    seconds = time.perf_counter() - started
    nulls = {field.name: packer.nulls[field.name] for field in view.fields}
    written = done - first
    return ImportReport(done, first, done * packer.row_bytes, seconds, written / seconds, nulls, ahead)


def _first_row(mark: ImportMark, rows: int) -> int:
    """Return where to begin: where an import of the same file was cut short, else at its first row."""
    done = mark.rows_done()
    return done if 0 <= done <= rows else 0


def _ms(seconds: float) -> int:
    return max(1, round(1000 * seconds))


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
