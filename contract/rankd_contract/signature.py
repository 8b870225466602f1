"""Names, types and shapes of the tensors between features and model: the one place they are spelled.

R is the number of user rows (with their context), N the number of candidates; `in_row` says which user
row a candidate belongs to. Inputs of width 0 do not exist. Every name starts with `in_` or `out_` so that
none can equal a parameter's name in an exported graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankd_contract.encoding import Block
from rankd_contract.schema import Entity, FeatureSchema

__all__ = [
    "CALIBRATED",
    "FIELD_WEIGHTS",
    "LOGITS",
    "ROW",
    "SCORES",
    "TensorSpec",
    "calibrated",
    "field_weights",
    "input_name",
    "inputs",
    "outputs",
    "part_name",
    "slot_names",
    "tensors",
]

ROW = "in_row"
LOGITS = "out_logits"
SCORES = "out_scores"
FIELD_WEIGHTS = "out_field_weights"
"""An output that a bundle may have besides: what each score was made of."""
CALIBRATED = "out_calibrated"
"""An output that a bundle may have besides: the scores after the manifest's calibration."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor's name, numpy dtype and dimensions ("R" and "N" are dynamic)."""

    name: str
    dtype: str
    dims: tuple[str | int, ...]


def input_name(entity: Entity, part: str) -> str:
    """Return the name of an entity's `ids` or `values` input."""
    return f"in_{entity.value}_{part}"


def part_name(k: int) -> str:
    """Return the name of the k-th tensor between the two graphs of a bundle that computes an item once."""
    return f"in_part_{k}"


def inputs(schema: FeatureSchema) -> tuple[TensorSpec, ...]:
    """Inputs of every model over this schema, in order; `in_row` comes last."""
    specs = []
    for entity in Entity:
        layout, rows = schema.layout(entity), "N" if entity is Entity.ITEM else "R"
        if layout.num_ids:
            specs.append(TensorSpec(input_name(entity, "ids"), "int32", (rows, layout.num_ids)))
        if layout.num_values:
            specs.append(TensorSpec(input_name(entity, "values"), "float32", (rows, layout.num_values)))
    return (*specs, TensorSpec(ROW, "int64", ("N",)))


def outputs(schema: FeatureSchema) -> tuple[TensorSpec, ...]:
    """Logits and probabilities, one column a task in the schema's order."""
    dims = ("N", len(schema.tasks))
    return TensorSpec(LOGITS, "float32", dims), TensorSpec(SCORES, "float32", dims)


def slot_names(schema: FeatureSchema) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What models read as one thing each, of the user's side and of the item's, in order.

    On the user's side: the user's fields, the context's, crosses of these. On the item's: its fields, then
    crosses with one of them.
    """
    fields = {entity: [at.field.name for at in schema.layout(entity).fields] for entity in Entity}
    of_user = [cross.name for cross in schema.crosses if not schema.of_item(cross)]
    of_item = [cross.name for cross in schema.crosses if schema.of_item(cross)]
    return (
        (*fields[Entity.USER], *fields[Entity.CONTEXT], *of_user),
        (*fields[Entity.ITEM], *of_item),
    )


def calibrated(schema: FeatureSchema) -> TensorSpec:
    """Probabilities after calibration, of the scores' shape."""
    return TensorSpec(CALIBRATED, "float32", ("N", len(schema.tasks)))


def field_weights(schema: FeatureSchema, num_crosses: int) -> TensorSpec:
    """How much each of a model's own crosses takes of each slot, in the order of `slot_names`."""
    num_slots = sum(map(len, slot_names(schema)))
    return TensorSpec(FIELD_WEIGHTS, "float32", ("N", num_slots, num_crosses))


def tensors(blocks: Mapping[Entity, Block], row: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
    """Name the blocks of one batch as the model's inputs; nothing is copied."""
    named: dict[str, NDArray[np.generic]] = {}
    for entity, block in blocks.items():
        if block.ids.shape[1]:
            named[input_name(entity, "ids")] = block.ids
        if block.values.shape[1]:
            named[input_name(entity, "values")] = block.values
    named[ROW] = row
    return named
