"""Legend: N rows, T tasks, K tasks of a funnel."""

from __future__ import annotations

import math
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rankd_training.errors import SettingError
from rankd_training.learning.losses import click_weights, funnel_penalty, listwise, pairwise
from rankd_training.recipes.ctr import RunResult, train
from rankd_training.settings import TrainSettings
from tests.training.tables import write


def drawn(seed: int = 0, num_rows: int = 60, groups: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logit_N = torch.randn(num_rows, generator=generator)
    label_N = (torch.rand(num_rows, generator=generator) < 0.4).float()
    return logit_N, label_N, torch.randint(groups, (num_rows,), generator=generator)


@pytest.mark.parametrize("seed", range(5))
def test_pairwise_is_the_mean_over_all_pairs_of_a_group(seed: int) -> None:
    logit_N, label_N, group_N = drawn(seed)
    losses = [
        math.log1p(math.exp(float(logit_N[b] - logit_N[a])))
        for a, b in product(range(60), repeat=2)
        if group_N[a] == group_N[b] and label_N[a] == 1 and label_N[b] == 0
    ]
    assert pairwise(logit_N, label_N, group_N).item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_listwise_is_the_mean_of_a_softmax_within_each_group(seed: int) -> None:
    logit_N, label_N, group_N = drawn(seed)
    losses = []
    for group in torch.unique(group_N):
        mine = group_N == group
        if 0 < label_N[mine].sum() < mine.sum():
            losses += (-functional.log_softmax(logit_N[mine], 0)[label_N[mine] > 0]).tolist()
    assert listwise(logit_N, label_N, group_N).item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.parametrize("rank", [pairwise, listwise])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_groups_of_one_class_say_nothing_and_their_gradient_is_zero(rank: Any, label: float) -> None:
    logit_N = torch.tensor([3.0, -80.0, 90.0], requires_grad=True)
    loss = rank(logit_N, torch.full((3,), label), torch.tensor([1, 1, 2]))
    loss.backward()
    assert loss == 0
    assert logit_N.grad is not None
    assert (logit_N.grad == 0).all()


@pytest.mark.parametrize("rank", [pairwise, listwise])
def test_large_logits_give_finite_losses(rank: Any) -> None:
    logit_N = torch.tensor([1e4, -1e4, 2e4], requires_grad=True)
    loss = rank(logit_N, torch.tensor([0.0, 1.0, 0.0]), torch.zeros(3, dtype=torch.int64))
    loss.backward()
    assert loss.isfinite()
    assert logit_N.grad is not None
    assert logit_N.grad.isfinite().all()


def test_clicks_are_weighed_by_a_softmax_over_a_users_own() -> None:
    loss_NT = torch.tensor([[0.1], [0.5], [2.0], [0.3], [0.9]])
    label_NT = torch.tensor([[1.0], [1.0], [0.0], [1.0], [1.0]])
    group_N = torch.tensor([7, 7, 7, 7, 2])
    weight_N = click_weights(loss_NT, label_NT, group_N, 0.5)[:, 0]
    a, b, c = functional.softmax(torch.tensor([0.1, 0.5, 0.3]) / -0.5, 0) * 3
    torch.testing.assert_close(weight_N, torch.tensor([a, b, 1.0, c, 1.0]))


def test_a_groups_clicks_keep_their_total_weight() -> None:
    logit_N, label_N, group_N = drawn(3)
    loss_NT = functional.binary_cross_entropy_with_logits(logit_N, label_N, reduction="none")[:, None]
    weight_N = click_weights(loss_NT, label_N[:, None], group_N, 0.1)[:, 0]
    for group in torch.unique(group_N):
        clicked = (group_N == group) & (label_N > 0)
        assert weight_N[clicked].sum().item() == pytest.approx(clicked.sum().item(), rel=1e-5)


def test_the_funnels_penalty_is_prestos() -> None:
    weight_KD = torch.tensor([[1.0, -2.0], [1.5, -2.0], [0.5, 1.0]])
    assert funnel_penalty(weight_KD).item() == pytest.approx((1 + 2) + (0.5 + 0) + (1 + 3))


# What follows learns from planted data.

PLANTED = """
rankd_schema: 1
name: planted
views:
  - name: user
    entity: user
    key: user_id
    fields: [{name: user_id, kind: categorical, dtype: int64, hash: 4000}]
  - name: item
    entity: item
    key: item_id
    fields: [FIELDS]
tasks: [TASKS]
"""
PLAIN = {"embedding_width": 4, "cross_layers": 1, "hidden": [16], "mix": [], "dropout": 0.0}


def planted(folder: Path, columns: dict[str, Any], split_N: Any, tasks: str, **given: Any) -> RunResult:
    """Train DCNv2 on invented columns: `x0`, `x1`, ... are numbers of items."""
    numbers = [name for name in columns if name.startswith("x")]
    fields = ", ".join(f"{{name: {name}, kind: numeric, dtype: float32, default: 0}}" for name in numbers)
    (folder / "schema.yaml").write_text(PLANTED.replace("FIELDS", fields).replace("TASKS", tasks))
    pq.write_table(pa.table({**columns, "split": split_N}), folder / "examples.parquet")
    name = f"run{len(list(folder.iterdir()))}"
    settings: dict[str, Any] = {"model": "dcnv2", "model_config": PLAIN, "patience": 99, **given}
    return train(
        TrainSettings(folder / "examples.parquet", folder / "schema.yaml", folder / name, **settings)
    )


def mean_over_seeds(train_one: Any, seeds: int = 2) -> float:
    return float(np.mean([train_one(seed) for seed in range(seeds)]))


HIDE_USERS = {"unknown_rates": {"user_id": 1.0}}


@pytest.mark.parametrize("loss", ["pairwise", "listwise"])
def test_a_ranking_loss_learns_what_each_user_prefers_where_users_differ_the_other_way(
    tmp_path: Path, loss: str
) -> None:
    """Users who are shown dear things buy more, yet each of them prefers the cheaper one."""
    rng = np.random.default_rng(0)
    user_N = np.repeat(np.arange(800), 5)
    wealth_N = rng.normal(scale=2, size=800)[user_N]
    price_N, other_N = rng.normal(size=(2, 4000)).astype(np.float32)
    price_N += np.float32(0.5) * wealth_N.astype(np.float32)
    click_N = rng.random(4000) < 1 / (1 + np.exp(-(2 * wealth_N - price_N + 0.7 * other_N)))
    split_N = np.where(user_N < 300, "train", np.where(user_N < 500, "valid", "test"))
    columns = {"user_id": user_N, "x0": price_N, "x1": other_N, "click": click_N}
    told = {"epochs": 40, "batch_size": 1500, "learning_rate": 0.02, "stop_on": "user_auc", **HIDE_USERS}

    def user_auc(seed: int, **given: Any) -> float:
        result = planted(tmp_path, columns, split_N, "{name: click}", seed=seed, **told, **given)
        return result.metrics["test"]["click"].user_auc or 0.0

    assert mean_over_seeds(user_auc) < 0.6
    assert mean_over_seeds(partial(user_auc, ranking_loss=loss, ranking_weight=3.0)) > 0.75


def test_a_funnel_lends_a_rare_conversion_what_clicks_know(tmp_path: Path) -> None:
    """Purchases follow the same taste as clicks, and the training rows hold about forty of them."""
    rng = np.random.default_rng(1)
    x_ND = rng.normal(size=(6800, 12)).astype(np.float32)
    liked_N = x_ND @ rng.normal(size=12) / np.sqrt(12) * 1.5 + rng.logistic(size=6800)
    split_N = np.r_[["train"] * 800, ["valid"] * 2000, ["test"] * 4000]
    numbers = {f"x{k}": x_ND[:, k] for k in range(12)}
    columns = {"user_id": np.arange(6800) % 50, **numbers, "click": liked_N > 0.3, "buy": liked_N > 4.0}
    told = {"epochs": 25, "batch_size": 250, "learning_rate": 0.01, **HIDE_USERS}

    def buy_auc(seed: int, penalty: float) -> float:
        given = {"seed": seed, "funnel": ("click", "buy"), "funnel_penalty": penalty}
        result = planted(tmp_path, columns, split_N, "{name: click}, {name: buy}", **told, **given)
        return result.metrics["test"]["buy"].auc or 0.0

    apart = mean_over_seeds(partial(buy_auc, penalty=0.0))
    assert mean_over_seeds(partial(buy_auc, penalty=0.03)) > apart + 0.007


def test_denoising_distrusts_clicks_that_were_accidents(tmp_path: Path) -> None:
    """Most training rows of one kind were clicked by a slip of the thumb; validation and test are clean."""
    rng = np.random.default_rng(2)
    x_ND = rng.normal(size=(5600, 6)).astype(np.float32)
    click_N = x_ND @ [2.0, -2.0, 1.0, 1.0, 0.0, 0.0] > 1.5
    split_N = np.r_[["train"] * 600, ["valid"] * 1000, ["test"] * 4000]
    slip_N = (rng.random(5600) < 0.6) & (split_N == "train") & (x_ND[:, 0] < 0)
    numbers = {f"x{k}": x_ND[:, k] for k in range(6)}
    columns = {"user_id": rng.integers(20, size=5600), **numbers, "click": click_N | slip_N}
    told = {"epochs": 25, "batch_size": 300, "learning_rate": 0.02, **HIDE_USERS}

    def auc(seed: int, **given: Any) -> float:
        result = planted(tmp_path, columns, split_N, "{name: click}", seed=seed, **told, **given)
        return result.metrics["test"]["click"].auc or 0.0

    trusting = mean_over_seeds(auc)
    assert mean_over_seeds(partial(auc, denoise_from=5, denoise_temperature=0.5)) > trusting + 0.005


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"funnel": ("click",)}, "expected two or more"),
        ({"funnel": ("click", "nothing")}, "tasks of click, buy"),
        ({"funnel": ("buy", "click")}, "has click without buy"),
        ({"funnel": ("click", "buy"), "model": "lr", "model_config": {}}, "no head that its tasks share"),
        (
            {"funnel": ("click", "buy"), "model": "deepfm", "model_config": {}},
            "no head that its tasks share alone",
        ),
        (
            {"funnel": ("click", "buy"), "model": "armnet", "model_config": {"deep_hidden": [8]}},
            "no head that its tasks share alone",
        ),
        ({"denoise_temperature": 0.0}, "denoise_temperature"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    write(tmp_path)
    settings: dict[str, Any] = {"model_config": {"embedding_width": 4}, **given}
    with pytest.raises(SettingError, match=said):
        train(
            TrainSettings(
                tmp_path / "examples.parquet", tmp_path / "schema.yaml", tmp_path / "run", **settings
            )
        )
    assert not list(tmp_path.glob(".*"))


def test_pairs_are_of_a_group_whatever_number_it_has() -> None:
    """Codes of groups may be hashes of 64 bits."""
    logit, label = torch.tensor([0.3, -0.2, 0.9, 0.1]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    plain, far = torch.tensor([0, 0, 1, 1]), torch.tensor([-(2**63), -(2**63), 0, 0])
    assert pairwise(logit, label, far) == pairwise(logit, label, plain) > 0
