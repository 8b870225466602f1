"""Examples without their test rows, for whatever chooses settings: what is not there cannot be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rankd_training.errors import ExamplesError
from rankd_training.examples import SPLIT
from rankd_training.trial import Source

__all__ = ["without_test"]


def without_test(source: Source, path: Path) -> Source:
    """Write a copy of the examples without the test rows -> a source that is judged on validation rows.

    One validation row stands for the test split, since readers want rows of every split; nothing judges it.

    Raises:
        ExamplesError: the file cannot be read, has no `split` column, or no validation row.
    """
    stand_in: pa.Table | None = None
    try:
        with pq.ParquetFile(source.examples) as file:
            schema = file.schema_arrow
            if SPLIT not in schema.names:
                raise ExamplesError(source.examples, "no such column (train, valid or test)", column=SPLIT)
            at = schema.names.index(SPLIT)
            schema = schema.set(at, pa.field(SPLIT, pa.string()))
            with pq.ParquetWriter(path, schema) as writer:
                for batch in file.iter_batches():
                    table = pa.Table.from_batches([batch])
                    table = table.set_column(at, schema.field(at), table[SPLIT].cast(pa.string()))
                    kept = _where(table, "test", keep=False)
                    writer.write_table(kept.cast(schema))
                    if stand_in is None:
                        valid = _where(kept, "valid", keep=True)
                        stand_in = valid.slice(0, 1) if valid.num_rows else None
                if stand_in is None:
                    raise ExamplesError(
                        source.examples, "no row says 'valid'; each of the splits needs rows", column=SPLIT
                    )
                label = pa.chunked_array([pa.array(["test"], pa.string())])
                writer.write_table(stand_in.set_column(at, schema.field(at), label).cast(schema))
    except (OSError, pa.ArrowException) as error:
        raise ExamplesError(source.examples, f"cannot be read as Parquet: {error}") from error
    return replace(source, examples=path, splits=("train", "valid"))


def _where(table: pa.Table, split: str, *, keep: bool) -> pa.Table:
    """Rows that say `split`, or those that do not; rows that say nothing are for readers to refuse."""
    says_n: Any = pc.is_in(table[SPLIT], value_set=pa.array([split]))
    return table.filter(says_n if keep else pc.invert(says_n))
