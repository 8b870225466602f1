"""Examples: labelled rows, encoded once through the contract into the blocks a model reads.

Read by column from a file or a folder of files (`row_files.py`), some thousands of rows at a time. What would
not fit into memory is put into files of the user's cache and mapped; the next run finds it there. What cannot
be trained on is refused with file, column and row. Knows no torch.

Legend: n rows, T tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rankd_contract.arrow_whole import FRACTION
from rankd_contract.columns import Column
from rankd_contract.encoding import Block, Encoder
from rankd_contract.errors import ContractError, ValueTypeError
from rankd_contract.schema import Entity, FeatureSchema
from rankd_training.data.encoded import InFiles, InMemory, Sink, load_arrays
from rankd_training.data.places import cache_root
from rankd_training.data.row_files import RowFile, digest_of, open_rows
from rankd_training.data.splits import SPLIT, SPLIT_NAMES, SplitPlan
from rankd_training.errors import ExamplesError
from rankd_training.examples.columns import Piece, group_codes, label, nobody_codes, split_codes, times
from rankd_training.examples.layout import CODE, GROUP, LABEL, Layout, check_columns, refuse_told_labels
from rankd_training.settings import TrainSettings

__all__ = ["IN_MEMORY_BYTES", "Examples", "encoded", "examples_of", "load_examples", "pieces"]

IN_MEMORY_BYTES = 2 << 30
TRAIN, VALID, _ = SPLIT_NAMES
_COUNTED_AT_ONCE = 1 << 20

RowsRead = Callable[[int, int], None]


def _nobody(done: int, total: int) -> None:
    """Hear nothing."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Encoded rows with their labels.

    Attributes:
        schema: what they are encoded under.
        blocks: n rows of each entity, defaults filled in; mapped files where memory would not hold them.
        label_nT: float32, 0 or 1, a column a task in the schema's order.
        group_n: an integer code of whose row it is, for the AUC within users.
        rows: indices of each split's rows, in file order.
        sha256: digest of the file, or of all files.
        split_by: how the rows were split, in words; empty where the caller did it.
        dealt: whether they were split by a plan, and not as they or their files say.
    """

    schema: FeatureSchema
    blocks: Mapping[Entity, Block]
    label_nT: npt.NDArray[np.float32]
    group_n: npt.NDArray[np.int64]
    rows: Mapping[str, npt.NDArray[np.int64]]
    sha256: str
    split_by: str = ""
    dealt: bool = False

    def __len__(self) -> int:
        return len(self.label_nT)

    def positives(self, split: str) -> npt.NDArray[np.int64]:
        """How many rows of a split have each label [T]; labels are not copied all at once."""
        rows = self.rows[split]
        counts = np.zeros(self.label_nT.shape[1], np.int64)
        for at in range(0, len(rows), _COUNTED_AT_ONCE):
            counts += self.label_nT[rows[at : at + _COUNTED_AT_ONCE]].sum(0, dtype=np.int64)
        return counts

    def nobodys(self, row_N: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of some rows are nobody's: their group is null."""
        return np.asarray(self.group_n[row_N] == nobody_codes(row_N))


def examples_of(
    settings: TrainSettings, schema: FeatureSchema, told: RowsRead = _nobody, *, to_train: bool = True
) -> Examples:
    """The examples of a run: every reader of a run's rows deals them out as its settings say.

    `told` hears how many rows are encoded, of how many.

    Raises:
        SettingError: `split` is no three shares.
        ExamplesError: as `load_examples`.
    """
    return load_examples(
        settings.examples,
        schema,
        group_column=settings.group_column,
        split=SplitPlan.chosen(settings.split, settings.split_time, settings.split_seed),
        in_memory_bytes=settings.in_memory_mb << 20,
        told=told,
        to_train=to_train,
    )


def load_examples(
    path: Path,
    schema: FeatureSchema,
    *,
    group_column: str | None = None,
    split: SplitPlan | None = None,
    in_memory_bytes: int = IN_MEMORY_BYTES,
    cache: Path | None = None,
    told: RowsRead = _nobody,
    to_train: bool = True,
) -> Examples:
    """Read and encode examples.

    Args:
        path: a file or a folder of files; a column for each field's source and each task's label.
        schema: what to encode under.
        group_column: whose row it is; by default the key of the schema's first user view, and every row its
            own where the schema has no user.
        split: how to deal out the rows; by default as their column `split` says, else as the files' names
            say, else 80/10/10 by a hash of the row's number.
        in_memory_bytes: encoded rows that need more are mapped from files.
        cache: folder of those files; by default in the user's cache.
        told: how many rows are encoded, of how many; says nothing where mapped files are found.
        to_train: whether there must be something to learn from: rows of each split, labels of both classes.

    Raises:
        ExamplesError: a column is missing or of the wrong type, a label is not 0 or 1 or has one class only,
            a split is empty, or a field reads a label; names file, column and row.
    """
    files = open_rows(path)
    users = schema.of(Entity.USER)
    layout = Layout.of(path, files, schema, group_column or (users[0].key if users else None), split)
    wanted = layout.wanted()
    if to_train:
        refuse_told_labels(path, schema)
    else:
        hint = "`rankd score` scores rows without labels"
        wanted |= {task.label: f"{wanted[task.label]}; {hint}" for task in schema.tasks}
    check_columns(files, schema, wanted)
    num_rows = sum(file.num_rows for file in files)
    if not num_rows:
        raise ExamplesError(path, "has no rows")
    sha256 = digest_of(files)
    if num_rows * layout.row_bytes() <= in_memory_bytes:
        memory = InMemory(layout.specs(), num_rows)
        _encode(files, layout, memory, num_rows, told)
        arrays: Mapping[str, npt.NDArray[Any]] = memory.finish()
    else:
        arrays = _mapped(
            path, files, layout, (cache or cache_root() / "encoded") / layout.key(sha256), num_rows, told
        )
    rows = {name: np.flatnonzero(arrays[CODE] == code) for code, name in enumerate(SPLIT_NAMES)}
    if to_train:
        _check_splits(path, schema, arrays[LABEL], arrays[CODE], rows, dealt=layout.plan is not None)
    return Examples(
        schema=schema,
        blocks={e: Block(arrays[f"{e.value}_ids"], arrays[f"{e.value}_values"]) for e in Entity},
        label_nT=arrays[LABEL],
        group_n=arrays[GROUP],
        rows=rows,
        sha256=sha256,
        split_by=layout.split_by,
        dealt=layout.plan is not None,
    )


def _mapped(
    path: Path, files: Sequence[RowFile], layout: Layout, folder: Path, num_rows: int, told: RowsRead
) -> Mapping[str, npt.NDArray[Any]]:
    """The arrays of `folder`, encoded where it is not there yet."""
    try:
        found = load_arrays(folder, layout.specs(), num_rows)
        if found is None:
            with InFiles(folder, layout.specs(), num_rows) as written:
                _encode(files, layout, written, num_rows, told)
                found = written.finish()
    except OSError as error:
        needed_mb = num_rows * layout.row_bytes() >> 20
        raise ExamplesError(
            path,
            f"{needed_mb:,} MB of encoded rows cannot be kept in {folder.parent} "
            f"({error.strerror or error}); set XDG_CACHE_HOME to a folder with room, or raise in_memory_mb",
        ) from error
    return found


def _encode(files: Sequence[RowFile], layout: Layout, sink: Sink, num_rows: int, told: RowsRead) -> None:
    """Read every row once, piece by piece."""
    schema, plan = layout.schema, layout.plan
    encoders = [Encoder(schema, entity) for entity in Entity]
    time_pieces = []
    done = 0
    for number, piece in pieces(files, list(layout.wanted())):
        for encoder in encoders:
            block = encoded(piece, encoder)
            sink.append(f"{encoder.layout.entity.value}_ids", block.ids)
            sink.append(f"{encoder.layout.entity.value}_values", block.values)
        sink.append(LABEL, np.stack([label(piece, task.label) for task in schema.tasks], axis=1))
        if layout.group_column is not None:
            sink.append(GROUP, group_codes(piece, layout.group_column, done))
        else:
            sink.append(GROUP, np.arange(done, done + len(piece)))
        if layout.file_splits is not None:
            code = SPLIT_NAMES.index(layout.file_splits[number])
            sink.append(CODE, np.full(len(piece), code, np.int8))
        elif plan is None:
            sink.append(CODE, split_codes(piece))
        elif plan.time_column is not None:
            time_pieces.append(times(piece, plan.time_column))
        done += len(piece)
        told(done, num_rows)
    if plan is not None:
        sink.append(CODE, plan.codes(num_rows, np.concatenate(time_pieces) if time_pieces else None))


def pieces(files: Sequence[RowFile], columns: Sequence[str]) -> Iterator[tuple[int, Piece]]:
    """Read columns of files, batch by batch, each with the number of its file."""
    for number, file in enumerate(files):
        first_row = 0
        for batch in file.batches(columns):
            yield number, Piece(file.path, first_row, batch)
            first_row += batch.num_rows


def encoded(piece: Piece, encoder: Encoder) -> Block:
    """Encode one entity's fields of a piece, defaults filled in. Raises ExamplesError."""
    block = Block.empty(len(piece), encoder.layout)
    for entry in encoder.layout.fields:
        field = entry.field
        try:
            column = Column.from_arrow(piece.batch.column(field.source), field)
            encoder.encode_field(entry, column, block, slice(None))
        except ValueTypeError as error:
            remedy = "; round the column, or make the field numeric float32" if error.got == FRACTION else ""
            problem = f"field '{field.name}' expects {error.expected}, got {error.got}{remedy}"
            piece.refuse(field.source, problem, error.row)
        except ContractError as error:
            piece.refuse(field.source, str(error))
    return encoder.fill_defaults(block)


def _check_splits(
    path: Path,
    schema: FeatureSchema,
    label_nT: npt.NDArray[np.float32],
    code_n: npt.NDArray[np.int8],
    rows: Mapping[str, npt.NDArray[np.int64]],
    *,
    dealt: bool,
) -> None:
    """Refuse an empty split, and a label of one class in what is learned from or decides when to stop."""
    remedy = f"{len(code_n)} rows are too few to deal out" if dealt else "`--split 80/10/10` deals them out"
    for name, found in rows.items():
        if not len(found):
            raise ExamplesError(
                path,
                f"no row is of '{name}'; each of the splits needs rows; {remedy}",
                column=None if dealt else SPLIT,
            )
    for t, task in enumerate(schema.tasks):
        positives = np.zeros(len(SPLIT_NAMES))
        for at in range(0, len(code_n), _COUNTED_AT_ONCE):
            some = slice(at, at + _COUNTED_AT_ONCE)
            positives += np.bincount(code_n[some], label_nT[some, t], len(SPLIT_NAMES))
        for name, num_positive in zip((TRAIN, VALID), positives, strict=False):
            if num_positive in {0, len(rows[name])}:
                problem = (
                    f"the label is {int(num_positive > 0)} in every row of {name}; both classes are needed"
                )
                raise ExamplesError(path, problem, column=task.label)
