from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rankd_training.learning import optimisers
from rankd_training.learning.optimisers import Optimisers
from rankd_training.learning.ranks import ALONE
from rankd_training.models.registry import build
from rankd_training.settings import TrainSettings
from tests.training.fields import mixed_schema, random_inputs


def made(**given: Any) -> tuple[torch.nn.Module, Optimisers]:
    torch.manual_seed(0)
    model = build("mlcc", mixed_schema(), {"embedding_width": 4, "dropout": 0.0})
    return model, Optimisers(model, TrainSettings(Path(), Path(), Path(), **given), ALONE)


def step(model: torch.nn.Module, told: Optimisers, share: float = 1.0) -> None:
    torch.manual_seed(1)
    told.zero_grad()
    model.train()
    features = random_inputs(mixed_schema(), 9, 9)
    features["in_row"] = torch.arange(9)
    model(features).square().sum().backward()
    told.step(share)


def test_a_small_table_is_moved_whole_and_a_large_one_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not made()[1].tables
    monkeypatch.setattr(optimisers, "DENSE_ROWS", 10)
    model, told = made()
    assert len(told.tables) == 1
    assert not model.embedding.table.weight.requires_grad  # type: ignore[union-attr]
    assert not made(embedding_optimiser="adam")[1].tables


def test_embeddings_have_a_learning_rate_of_their_own() -> None:
    before = {name: p.detach().clone() for name, p in made()[0].named_parameters()}
    model, told = made(learning_rate=1e-3, embedding_learning_rate=1e-1)
    step(model, told)
    moved = {name: (p - before[name]).abs().max().item() for name, p in model.named_parameters()}
    assert moved["embedding.table.weight"] == pytest.approx(1e-1, rel=0.05)
    assert moved["head.weight"] == pytest.approx(1e-3, rel=0.05)


@pytest.mark.parametrize("kind", ["adam", "deferred_adam"])
def test_a_share_of_the_rates_is_a_run_with_smaller_rates(kind: str) -> None:
    decays = {"weight_decay": 0.1, "embedding_decay": 0.1}
    told = [
        made(embedding_optimiser=kind, learning_rate=rate, embedding_learning_rate=2 * rate, **decays)
        for rate in (4e-3, 1e-3)
    ]
    for (model, optimisers_), share in zip(told, (0.25, 1.0), strict=True):
        for _ in range(2):
            step(model, optimisers_, share)
        optimisers_.settle()
    for one, other in zip(told[0][0].parameters(), told[1][0].parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", ["adam", "rowwise_adagrad"])
def test_no_element_of_a_gradient_counts_for_more_than_the_clamp(kind: str) -> None:
    # Adagrad's first step is the same for any scale of a gradient, so its state is what shows the clamp.
    model, told = made(embedding_optimiser=kind, gradient_clamp=1e-6)
    step(model, told)
    if kind == "adam":
        assert max(p.grad.abs().max().item() for p in model.parameters() if p.grad is not None) <= 1.01e-6
    else:
        assert told.tables[0].state()["state"].max().item() <= 1.01e-12


@pytest.mark.parametrize("kind", ["adam", "deferred_adam", "lazy_adam", "rowwise_adagrad"])
def test_a_saved_state_goes_on_as_if_nothing_had_happened(kind: str) -> None:
    whole, told = made(embedding_optimiser=kind)
    for _ in range(2):
        step(whole, told)
    half, before = made(embedding_optimiser=kind)
    step(half, before)
    other, after = made(embedding_optimiser=kind)
    other.load_state_dict(half.state_dict())
    state = {name: tensor for name, tensor in before.state().items() if isinstance(tensor, Tensor)}
    after.load({name: tensor.clone() for name, tensor in state.items()})
    step(other, after)
    for one, two in zip(whole.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_after_release_the_model_reads_its_table_and_nothing_is_held() -> None:
    model, told = made(embedding_optimiser="deferred_adam")
    step(model, told)
    told.settle()
    told.release()
    assert not told.state()
    model.train()
    assert model(random_inputs(mixed_schema(), 2, 3)).isfinite().all()


def test_tables_of_pairs_decay_as_embeddings_and_not_as_matrices(tmp_path: Path) -> None:
    methods = ("user_id*item_id=memorise",)
    model = build("optinter", mixed_schema(), {"methods": methods, "hidden": [8], "embedding_width": 4})
    settings = TrainSettings(tmp_path, tmp_path, tmp_path, learning_rate=0.1, embedding_decay=0.5)
    optimisers = Optimisers(model, settings, ALONE)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimisers.step()
    after = model.state_dict()
    table = next(name for name in before if name.startswith("groups.") and name.endswith("table.weight"))
    assert torch.allclose(after[table], before[table] * 0.95)
    assert torch.equal(after["head.weight"], before["head.weight"])
