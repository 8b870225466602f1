"""Yardsticks (gradient-boosted trees, popularity) by name, loaded when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from rankd_training.examples import Examples

__all__ = ["Fitted", "fit", "names"]

REGISTRY = "rankd_training.yardsticks.registry"


class Fitted(Protocol):
    """A yardstick that has learned."""

    def predict(self, split: str) -> npt.NDArray[np.float32]:
        """Probabilities for a split's rows -> [n, T]."""


class _Registry(Protocol):
    def names(self) -> list[str]: ...

    def fit(self, name: str, examples: Examples, *, seed: int, settings: Mapping[str, Any]) -> Fitted: ...


def names() -> list[str]:
    """Return the names of all yardsticks."""
    registry = _registry()
    return list(registry.names()) if registry else []


def fit(name: str, examples: Examples, *, seed: int, settings: Mapping[str, Any]) -> Fitted:
    """Let a yardstick learn from the training rows; when to stop it decides on validation rows."""
    registry = _registry()
    assert registry, "names() is empty without it"
    return registry.fit(name, examples, seed=seed, settings=settings)


def _registry() -> _Registry | None:
    found = find_spec(REGISTRY.rpartition(".")[0])
    return cast(_Registry, import_module(REGISTRY)) if found else None
