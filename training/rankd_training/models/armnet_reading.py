"""What an ARM-Net looks at: which fields count at all, and which crosses one score was made of.

Says what the model took, not what caused the outcome. A field can also count without being taken: where it
draws attention away from another, none of these shows it. A cross of the schema counts as one more field.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import slot_names
from rankd_training.models.armnet import ARMNet

__all__ = ["CrossFeature", "cross_features", "field_importance", "field_usage"]


@dataclass(frozen=True, slots=True)
class CrossFeature:
    """Fields that one score's neurons crossed, in the schema's order of slots.

    Attributes:
        fields: their names.
        weights: how much they were taken, a number a field: sum of |w| over the neurons that crossed them.
        num_neurons: how many neurons crossed exactly these.
    """

    fields: tuple[str, ...]
    weights: tuple[float, ...]
    num_neurons: int


@torch.no_grad()
def field_importance(model: ARMNet) -> dict[str, float]:
    """By field, the published measure: sum of |v| over neurons, as shares of 1, largest first.

    It knows no data: a field that no score takes keeps its initial weight unless a decay wears it off.
    """
    return _shares(model.schema, model.neurons.value_KOS.abs().sum((0, 1)))


@torch.no_grad()
def field_usage(model: ARMNet, features: Mapping[str, Tensor]) -> dict[str, float]:
    """By field, how much these candidates' scores took of it: sum of |w|, as shares of 1, largest first."""
    return _shares(model.schema, model.field_weights(features).abs().sum((0, 2)))


@torch.no_grad()
def cross_features(model: ARMNet, features: Mapping[str, Tensor]) -> list[tuple[CrossFeature, ...]]:
    """For each candidate, the crosses its score was made of: what most neurons crossed first, ties by weight.

    A cross has the fields that a neuron's attention left above zero. With alpha 1 that is every field.
    """
    names = _slot_names(model.schema)
    return [_crosses(weight_SO, names) for weight_SO in model.field_weights(features).abs()]


def _crosses(weight_SO: Tensor, names: list[str]) -> tuple[CrossFeature, ...]:
    by_fields: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
    for weight_S in weight_SO.T:
        by_fields[tuple(weight_S.nonzero().flatten().tolist())].append(weight_S)
    found = [
        CrossFeature(
            fields=tuple(names[slot] for slot in slots),
            weights=tuple(torch.stack(weights).sum(0)[list(slots)].tolist()),
            num_neurons=len(weights),
        )
        for slots, weights in by_fields.items()
    ]
    return tuple(sorted(found, key=lambda cross: (-cross.num_neurons, -sum(cross.weights))))


def _shares(schema: FeatureSchema, amount_S: Tensor) -> dict[str, float]:
    shares = (amount_S / amount_S.sum()).tolist()
    ranked = sorted(zip(_slot_names(schema), shares, strict=True), key=lambda pair: -pair[1])
    return dict(ranked)


def _slot_names(schema: FeatureSchema) -> list[str]:
    of_user, of_item = slot_names(schema)
    return [*of_user, *of_item]
