"""What three fields tell together and no pair of them: who learns it, and who cannot.

A plain network of the same size is not among those who cannot, if it starts as the others do; one with the
published start and dropout is slow. The figures: docs/results/planted.md.
"""

from __future__ import annotations

import pytest

from bench.planted import configs, learn

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["mlcc", "dnn"])
@pytest.mark.parametrize("seed", [0, 1])
def test_mlcc_and_a_plain_network_that_starts_as_well_find_it_at_once(name: str, seed: int) -> None:
    found = learn(name, configs()[name], seed=seed, learning_rate=1e-2, epochs=3)
    assert found[-1] > 0.9


def test_armnet_finds_it_with_more_epochs() -> None:
    found = learn("armnet", configs()["armnet"], seed=1, learning_rate=1e-2, epochs=10)
    assert found[-1] > 0.9


@pytest.mark.parametrize("name", ["fm", "lr"])
def test_models_of_pairs_and_of_single_fields_stay_at_chance(name: str) -> None:
    missed = learn(name, configs()[name], seed=0, learning_rate=1e-2, epochs=6)
    assert max(missed) < 0.55
