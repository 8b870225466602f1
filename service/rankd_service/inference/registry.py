"""The models that are served at one instant: an immutable snapshot, swapped as a whole.

A request takes its model from one snapshot and keeps it to the end, so all its scores are of one version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rankd_contract.calibration import Calibration
from rankd_service.domain import ModelCard
from rankd_service.errors import RejectReason, Unavailable, UnknownModel
from rankd_service.features.assemble import Assembler
from rankd_service.inference.batch import Batch
from rankd_service.inference.cost import CostModel

__all__ = ["LoadedModel", "ModelRegistry", "Scorer", "Snapshot"]


class Scorer(Protocol):
    """A graph, however it is run."""

    def score(self, batch: Batch) -> NDArray[np.float32]:
        """-> the graph's scores float32 [N, T]."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A bundle that passed its checks, with everything compiled that requests need of it.

    `prior_T` is what the model says on average: the score of a candidate it had no time for. Models with one
    `fingerprint` read the same features, and score the same tasks.
    """

    card: ModelCard
    fingerprint: int
    scorer: Scorer
    assembler: Assembler
    fusion_T: NDArray[np.float64]
    prior_T: NDArray[np.float32]
    cost: CostModel
    calibration: Calibration

    def score(self, batch: Batch, rows: int) -> NDArray[np.float32]:
        """Return the task scores float32 [N, T] of a batch: its first `rows` candidates', then the prior.

        They are calibrated where the bundle says how.
        """
        if rows >= len(batch):
            return self.calibration(self.scorer.score(batch))
        scores_NT = self.unscored(batch)
        if rows:
            scores_NT[:rows] = self.calibration(self.scorer.score(batch.part(0, rows)))
        return scores_NT

    def unscored(self, batch: Batch) -> NDArray[np.float32]:
        """Return the prior float32 [N, T] for all candidates."""
        return np.tile(self.prior_T, (len(batch), 1))


class Snapshot:
    """Models by name and version; the current one of a name answers where no version is asked for."""

    def __init__(
        self,
        current: Iterable[LoadedModel] = (),
        earlier: Iterable[LoadedModel] = (),
        cheaper: Mapping[str, str] | None = None,
    ) -> None:
        """Index one current model a name, and other versions; `cheaper` names what may score for what.

        Nothing changes afterwards.
        """
        self._cheaper = dict(cheaper or {})
        self._current = {model.card.name: model for model in current}
        by_name: dict[str, dict[int, LoadedModel]] = {}
        for model in (*earlier, *self._current.values()):
            by_name.setdefault(model.card.name, {})[model.card.version] = model
        self._by_name = MappingProxyType(by_name)

    def __len__(self) -> int:
        """Return the number of model names."""
        return len(self._by_name)

    def find(self, name: str, version: str | None = None) -> LoadedModel:
        """Return a model. Raises UnknownModel; Unavailable where there is no model at all."""
        if not self._by_name:
            raise Unavailable(RejectReason.NOT_READY, "no model is loaded yet; see /readyz")
        current = self._current.get(name)
        if current is None:
            raise UnknownModel(RejectReason.UNKNOWN_MODEL, "no such model; GET /v1/models lists those served")
        if version is None:
            return current
        found = {str(v): m for v, m in self._by_name[name].items()}.get(version)
        if found is None:
            raise UnknownModel(
                RejectReason.UNKNOWN_MODEL,
                "this version of the model is not served; GET /v1/models/{model} names it",
            )
        return found

    def cheaper(self, model: LoadedModel) -> LoadedModel | None:
        """Return what may score in a model's place: it is served, and reads the same features."""
        other = self._current.get(self._cheaper.get(model.card.name, ""))
        return other if other is not None and other.fingerprint == model.fingerprint else None

    def cards(self) -> list[ModelCard]:
        """Return what is served, by name."""
        return [self._current[name].card for name in sorted(self._current)]


class ModelRegistry:
    """Holds the current snapshot."""

    def __init__(self) -> None:
        """Start with no model."""
        self.snapshot = Snapshot()

    def publish(
        self,
        current: Iterable[LoadedModel],
        earlier: Iterable[LoadedModel] = (),
        cheaper: Mapping[str, str] | None = None,
    ) -> None:
        """Replace the snapshot; requests under way keep theirs."""
        self.snapshot = Snapshot(current, earlier, cheaper)
