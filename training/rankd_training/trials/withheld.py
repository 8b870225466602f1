"""Examples without their test rows, for whatever chooses settings: what is not there cannot be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rankd_training.data.splits import SPLIT, SPLIT_NAMES
from rankd_training.errors import ExamplesError
from rankd_training.examples.reading import DEALING, raw_batches, raw_schema
from rankd_training.trials.trial import Source

__all__ = ["without_test"]

TRAIN, VALID, TEST = range(3)


def without_test(source: Source, path: Path) -> Source:
    """Write a copy of the examples without the test rows -> a source that is judged on validation rows.

    One validation row stands for the test split, since readers want rows of every split; nothing judges it.

    Raises:
        ExamplesError: the examples cannot be read or trained on.
        SchemaError: the schema file is wrong (from the contract).
    """
    code_n = _codes(source)
    stand_in = int(np.flatnonzero(code_n == VALID)[0])
    found = raw_schema(source.examples)
    columns = [name for name in found.names if name != SPLIT]
    schema = pa.schema([*(found.field(name) for name in columns), pa.field(SPLIT, pa.string())])
    names = pa.array(SPLIT_NAMES)
    start = 0
    try:
        with pq.ParquetWriter(path, schema) as writer:
            for batch in raw_batches(source.examples, columns):
                mine_n = code_n[start : start + batch.num_rows]
                table = pa.Table.from_batches([batch])
                kept = np.flatnonzero(mine_n != TEST)
                split = names.take(mine_n[kept].astype(np.int64))
                writer.write_table(table.take(kept).append_column(schema.field(SPLIT), split))
                if start <= stand_in < start + batch.num_rows:
                    row = table.slice(stand_in - start, 1)
                    writer.write_table(row.append_column(schema.field(SPLIT), names.slice(TEST, 1)))
                start += batch.num_rows
    except OSError as error:
        raise ExamplesError(path, f"cannot be written: {error.strerror or error}") from error
    # The copy says itself whose split a row is.
    reading = {name: value for name, value in source.reading.items() if name not in DEALING}
    return replace(source, examples=path, reading=reading, splits=SPLIT_NAMES[:TEST])


def _codes(source: Source) -> npt.NDArray[np.int8]:
    """The split of each row, by its place in `SPLIT_NAMES`."""
    examples = source.load()
    code_n = np.empty(len(examples), np.int8)
    for code, name in enumerate(SPLIT_NAMES):
        code_n[examples.rows[name]] = code
    return code_n
