"""What three fields tell together and no pair of them: who learns it, and who cannot.

The figures beside it, with a plain network that starts as well as the others: docs/results/planted.md.
"""

from __future__ import annotations

import pytest

from bench.planted import configs, learn

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [0, 1])
def test_mlcc_finds_it_in_a_budget_in_which_the_published_plain_network_does_not(seed: int) -> None:
    settings = configs()
    found = learn("mlcc", settings["mlcc"], seed=seed, learning_rate=1e-2, epochs=3)
    assert found[-1] > 0.9
    for rate in (3e-3, 1e-2):
        missed = learn("dnn-published", settings["dnn-published"], seed=seed, learning_rate=rate, epochs=3)
        assert max(missed) < 0.6


def test_armnet_finds_it_with_more_epochs() -> None:
    found = learn("armnet", configs()["armnet"], seed=1, learning_rate=1e-2, epochs=10)
    assert found[-1] > 0.9


@pytest.mark.parametrize("name", ["fm", "lr"])
def test_models_of_pairs_and_of_single_fields_stay_at_chance(name: str) -> None:
    missed = learn(name, configs()[name], seed=0, learning_rate=1e-2, epochs=6)
    assert max(missed) < 0.55
