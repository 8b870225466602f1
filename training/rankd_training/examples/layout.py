"""Which columns of examples are read, what for, and which arrays they become."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rankd_contract.columns import Column
from rankd_contract.errors import ValueTypeError
from rankd_contract.schema import DType, Entity, FeatureSchema, Field, Kind
from rankd_training.data.encoded import ArraySpec
from rankd_training.data.row_files import RowFile, split_by_name
from rankd_training.data.splits import SPLIT, SplitPlan
from rankd_training.errors import ExamplesError

__all__ = ["CODE", "GROUP", "LABEL", "Layout", "check_columns", "refuse_told_labels", "sources"]

LABEL, GROUP, CODE = "label", "group", "split"
# Goes up whenever the same files and schema would be encoded otherwise.
ENCODING = 2
_MANY = 20


@dataclass(frozen=True, slots=True)
class Layout:
    """Which columns are read for what, and which arrays they become."""

    schema: FeatureSchema
    group_column: str | None
    plan: SplitPlan | None
    file_splits: list[str] | None
    split_by: str

    @classmethod
    def of(
        cls,
        path: Path,
        files: Sequence[RowFile],
        schema: FeatureSchema,
        group_column: str | None,
        plan: SplitPlan | None,
    ) -> Layout:
        """Settle who says which rows are whose: the plan, else a column, else the files' names."""
        if plan is not None:
            return cls(schema, group_column, plan, None, str(plan))
        if any(SPLIT in file.schema.names for file in files):
            return cls(schema, group_column, None, None, f"column '{SPLIT}'")
        by_name = split_by_name(files, path)
        if by_name is not None:
            return cls(schema, group_column, None, by_name, "the files' names")
        return cls(schema, group_column, SplitPlan(), None, f"{SplitPlan()}, since no column '{SPLIT}' says")

    def wanted(self) -> dict[str, str]:
        """Columns to read, and what for."""
        wanted = sources(self.schema)
        wanted |= {task.label: f"the label of task '{task.name}'" for task in self.schema.tasks}
        if self.group_column is not None:
            wanted[self.group_column] = "the rows' group"
        if self.plan is not None and self.plan.time_column is not None:
            wanted[self.plan.time_column] = "the time to split by"
        if self.plan is None and self.file_splits is None:
            wanted[SPLIT] = "train, valid or test"
        return wanted

    def specs(self) -> dict[str, ArraySpec]:
        """The arrays of all rows."""
        specs = {}
        for entity in Entity:
            at = self.schema.layout(entity)
            specs[f"{entity.value}_ids"] = ArraySpec("<i4", at.num_ids)
            specs[f"{entity.value}_values"] = ArraySpec("<f4", at.num_values)
        specs[LABEL] = ArraySpec("<f4", len(self.schema.tasks))
        specs[GROUP], specs[CODE] = ArraySpec("<i8"), ArraySpec("|i1")
        return specs

    def row_bytes(self) -> int:
        """What one row takes."""
        return sum(
            np.dtype(s.dtype).itemsize * (1 if s.width is None else s.width) for s in self.specs().values()
        )

    def key(self, sha256: str) -> str:
        """Name the folder of the mapped arrays: equal only where they would be equal."""
        encoded = replace(self.schema, crosses=()).canonical  # crosses are made of what is encoded
        parts = [ENCODING, sha256, encoded, self.group_column, self.split_by, self.file_splits]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def refuse_told_labels(path: Path, schema: FeatureSchema) -> None:
    """Refuse a field that reads a label: a model would be told what it is asked. Raises ExamplesError."""
    labels = {task.label: task.name for task in schema.tasks}
    for field in schema.fields.values():
        if field.source in labels:
            problem = f"is the label of task '{labels[field.source]}', and field '{field.name}' reads it"
            remedy = "a model would be told what it is asked; remove the field"
            raise ExamplesError(path, f"{problem}: {remedy}", column=field.source)


def sources(schema: FeatureSchema) -> dict[str, str]:
    """The columns of fields, and which field each is for."""
    return {field.source: f"field '{field.name}'" for field in schema.fields.values()}


def check_columns(files: Sequence[RowFile], schema: FeatureSchema, wanted: Mapping[str, str]) -> None:
    """Refuse a missing column, and a field's column whose type cannot be read, before any row is.

    Args:
        files: what is read.
        schema: whose fields.
        wanted: columns to read, and what for.
    """
    for file in files:
        names = file.schema.names
        for column, purpose in wanted.items():
            if column not in names:
                near = difflib.get_close_matches(column, names, 1)
                hint = f"did you mean '{near[0]}'? " if near else ""
                have = ", ".join(names[:_MANY]) + f" and {len(names) - _MANY} more" * (len(names) > _MANY)
                problem = f"no such column ({purpose}); {hint}the file has {have}"
                raise ExamplesError(file.path, problem, column=column)
        empty = file.schema.empty_table()
        for field in schema.fields.values():
            try:
                Column.from_arrow(empty[field.source].combine_chunks(), field)
            except ValueTypeError as error:
                problem = f"field '{field.name}' expects {error.expected}, got {error.got}"
                problem += _remedy(field, error.got)
                raise ExamplesError(file.path, problem, column=field.source) from error


def _remedy(field: Field, got: str) -> str:
    """What to do about a column of another type."""
    if field.derive is not None:
        return "; make it timestamps, as by pandas.to_datetime"
    if field.dtype is DType.STRING and got in {"double", "float"}:
        return "; make the field int64, or cast it to int64 and then to string (a float is written as 7.0)"
    if field.dtype is DType.FLOAT and got in {"string", "large_string"}:
        return "; make numbers of it, as by pandas.to_numeric(errors='coerce')"
    if field.dtype is DType.BOOL and got in {"string", "large_string"}:
        return "; make it true or false, as by column == 'yes'"
    lists = field.kind in {Kind.SEQUENCE, Kind.MULTI_VALUE}
    if got.startswith(("lists of", "list<", "large_list<")) != lists:
        return f"; make the field's kind {'one of single values' if lists else 'sequence or multi_value'}"
    if lists:
        return f"; cast its values to {field.dtype.value}, or make the field's dtype theirs"
    if got == "uint64":
        return (
            "; its numbers may be too large for int64: cast it to string, and make the field's dtype string"
        )
    plain = {"string": DType.STRING, "int64": DType.INT, "int32": DType.INT}.get(got)
    other = f", or make the field's dtype {plain.value}" if plain and field.kind is Kind.CATEGORICAL else ""
    return f"; cast it to {field.dtype.value}{other}"
