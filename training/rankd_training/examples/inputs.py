"""Model inputs of some rows, of which single fields can be moved from row to row.

Every row is its own user row, so the rows of a field can be permuted without touching any other field.

Legend: N rows, K permutations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rankd_contract.encoding import Block
from rankd_contract.schema import Entity, FeatureSchema
from rankd_contract.signature import ROW, input_name, tensors
from rankd_training.examples.examples import Examples

__all__ = ["RowInputs", "field_columns", "sampled_rows"]


@dataclass(frozen=True, slots=True)
class RowInputs:
    """Inputs by signature name, `in_row` left out; row i of each belongs to the same example.

    Attributes:
        features: [N, columns] each.
        columns: where each field lies: an input's name and the columns.
    """

    features: Mapping[str, Tensor]
    columns: Mapping[str, tuple[str, slice]]

    @classmethod
    def of(cls, examples: Examples, row_N: npt.NDArray[np.int64]) -> RowInputs:
        """Take rows of the examples."""
        blocks = {
            entity: Block(block.ids[row_N], block.values[row_N]) for entity, block in examples.blocks.items()
        }
        arrays = tensors(blocks, np.arange(len(row_N)))
        features = {name: torch.from_numpy(array) for name, array in arrays.items() if name != ROW}
        return cls(features, field_columns(examples.schema))

    def permuted(self, fields: Iterable[str], order_KN: Tensor) -> dict[str, Tensor]:
        """K copies of all rows, one after the other, in which the named fields come from other rows.

        All named fields of a copy move together.

        Args:
            fields: names.
            order_KN: by copy, the row that each row takes these fields from.

        Returns:
            Inputs of K·N rows.
        """
        num_copies, order = len(order_KN), order_KN.flatten()
        moved = {name: whole.repeat(num_copies, 1) for name, whole in self.features.items()}
        for field in fields:
            name, at = self.columns[field]
            moved[name][:, at] = self.features[name][:, at].index_select(0, order)
        return moved


def field_columns(schema: FeatureSchema) -> dict[str, tuple[str, slice]]:
    """By field, in the schema's order, the input that holds it and its columns there."""
    return {
        entry.field.name: (input_name(entity, "ids"), entry.ids)
        if entry.field.num_ids
        else (input_name(entity, "values"), entry.values)
        for entity in Entity
        for entry in schema.layout(entity).fields
    }


def sampled_rows(row_N: npt.NDArray[np.int64], num_rows: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw at most `num_rows` of these rows without replacement, in their order."""
    if len(row_N) <= num_rows:
        return row_N
    return np.sort(np.random.default_rng(seed).choice(row_N, num_rows, replace=False))
