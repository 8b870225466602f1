"""Columns that can teach a model nothing: one value, or none at all, in every training row.

Such a column is nearly always a mistake upstream (a join that found nothing, a renamed key, the wrong
vocabulary), and training does not fail on it. Looks at encoded rows, so at what the model is shown.

Legend: n rows, W columns of a block that belong to one field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from rankd_contract.encoding import Encoder
from rankd_contract.schema import MISSING, UNKNOWN, Entity, Field
from rankd_training.examples.examples import Examples

__all__ = ["silent_columns"]

_Number = TypeVar("_Number", np.int32, np.float32)
_ROWS_AT_ONCE = 1 << 18


def silent_columns(examples: Examples) -> tuple[str, ...]:
    """Return a warning for each field whose values are all alike in the training rows; names its column."""
    warnings = []
    for entity in Entity:
        encoder = Encoder(examples.schema, entity)
        block = examples.blocks[entity]
        default = encoder.defaults
        for at in encoder.layout.fields:
            train = examples.rows["train"]
            problem = (
                _problem_of_ids(block.ids[:, at.ids], train, default.ids[0, at.ids], at.field)
                if at.field.num_ids
                else _problem(block.values[:, at.values], train, default.values[0, at.values], at.field)
            )
            if problem:
                source = f"column '{at.field.source}'"
                field = "" if at.field.name == at.field.source else f" (field '{at.field.name}')"
                warnings.append(
                    f"{source}{field}: {problem}; the model learns nothing from it: "
                    "mend the data, or take the field out of the schema"
                )
    return tuple(warnings)


def _problem_of_ids(
    found_nW: npt.NDArray[np.int32],
    rows: npt.NDArray[np.int64],
    default_W: npt.NDArray[np.int32],
    field: Field,
) -> str:
    if all((piece == MISSING).all() for piece in _pieces(found_nW, rows)):
        return "no training row has a value"
    if all((piece <= UNKNOWN).all() for piece in _pieces(found_nW, rows)):
        return "no training row has a value that the vocabulary knows"
    return _problem(found_nW, rows, default_W, field)


def _problem(
    found_nW: npt.NDArray[_Number], rows: npt.NDArray[np.int64], default_W: npt.NDArray[_Number], field: Field
) -> str:
    first_W = found_nW[rows[0]]
    if not all((piece == first_W).all() for piece in _pieces(found_nW, rows)):
        return ""
    if field.default is not None and np.array_equal(first_W, default_W):
        return f"every training row has the default {field.default!r}, or no value"
    return "every training row has the same value"


def _pieces(found_nW: npt.NDArray[_Number], rows: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[_Number]]:
    """Rows by the hundred thousand: the first piece nearly always settles it, and rows may lie on disk."""
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield found_nW[rows[start : start + _ROWS_AT_ONCE]]
