"""The models that are served at one instant: an immutable snapshot, swapped as a whole.

A request takes its model from one snapshot and keeps it to the end, so all its scores are of one version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from rankd_contract.signature import SCORES
from rankd_service.domain import ModelCard
from rankd_service.errors import RejectReason, Unavailable, UnknownModel
from rankd_service.features.assemble import Assembler
from rankd_service.inference.session import GraphSession

__all__ = ["LoadedModel", "ModelRegistry", "Snapshot"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A bundle that passed its checks, with everything compiled that requests need of it."""

    card: ModelCard
    session: GraphSession
    assembler: Assembler
    fusion_T: NDArray[np.float64]

    def score(self, tensors: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        """Return the task scores float32 [N, T] of one batch."""
        return self.session.run((SCORES,), tensors)[0]


class Snapshot:
    """Models by name and version; the highest version of a name answers where none is asked for."""

    def __init__(self, models: Iterable[LoadedModel] = ()) -> None:
        """Index the models. Nothing changes afterwards."""
        by_name: dict[str, dict[int, LoadedModel]] = {}
        for model in models:
            by_name.setdefault(model.card.name, {})[model.card.version] = model
        self._by_name = MappingProxyType(by_name)
        self._latest = {name: versions[max(versions)] for name, versions in by_name.items()}

    def __len__(self) -> int:
        """Return the number of model names."""
        return len(self._by_name)

    def find(self, name: str, version: str | None = None) -> LoadedModel:
        """Return a model. Raises UnknownModel; Unavailable where there is no model at all."""
        if not self._by_name:
            raise Unavailable(RejectReason.NOT_READY, "no model is loaded yet; see /readyz")
        latest = self._latest.get(name)
        if latest is None:
            raise UnknownModel(RejectReason.UNKNOWN_MODEL, "no such model; GET /v1/models lists those served")
        if version is None:
            return latest
        found = {str(v): m for v, m in self._by_name[name].items()}.get(version)
        if found is None:
            raise UnknownModel(
                RejectReason.UNKNOWN_MODEL,
                "this version of the model is not served; GET /v1/models/{model} names it",
            )
        return found

    def cards(self) -> list[ModelCard]:
        """Return what is served, by name."""
        return [self._latest[name].card for name in sorted(self._latest)]


class ModelRegistry:
    """Holds the current snapshot."""

    def __init__(self) -> None:
        """Start with no model."""
        self.snapshot = Snapshot()

    def publish(self, models: Iterable[LoadedModel]) -> None:
        """Replace the snapshot; requests under way keep theirs."""
        self.snapshot = Snapshot(models)
