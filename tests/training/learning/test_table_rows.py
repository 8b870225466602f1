"""Legend: R rows of a table, E width, n places that a batch reads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rankd_training.errors import SettingError
from rankd_training.learning.ranks import ALONE
from rankd_training.learning.row_rules import DeferredAdam, LazyAdam, RowRule, RowwiseAdagrad
from rankd_training.learning.table_rows import TableRows

R, E, RATE, STEPS = 60, 4, 1e-2, 400


def table() -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(R, E)


def batches(steps: int = STEPS) -> list[Tensor]:
    """Some rows come at every step, most now and then, the last two never."""
    generator = torch.Generator().manual_seed(1)
    rare = (torch.rand(steps, 5, generator=generator) ** 2 * (R - 2)).long()
    return [torch.cat([row, torch.tensor([0, 1, 1])]).int() for row in rare]


def loss(vector_nE: Tensor, scale: float) -> Tensor:
    return scale * (vector_nE - 0.3).square().sum() + scale * vector_nE[:, 0].sin().sum()


def train_dense(decay: float, scale: float, optimiser: Callable[..., torch.optim.Optimizer]) -> Tensor:
    dense = table()
    told = optimiser(dense.parameters(), lr=RATE, weight_decay=decay)
    for row_n in batches():
        told.zero_grad()
        loss(dense(row_n), scale).backward()  # type: ignore[no-untyped-call]
        told.step()
    return dense.weight.detach()


def rows_of(dense: nn.Embedding, rule: RowRule, decay: float = 0.0) -> TableRows:
    return TableRows(dense, rule, keep=1 - RATE * decay, ranks=ALONE)


def train_rows(rows: TableRows, scale: float = 1.0, steps: list[Tensor] | None = None) -> None:
    for row_n in batches() if steps is None else steps:
        loss(rows(row_n), scale).backward()  # type: ignore[no-untyped-call]
        rows.step()


# Gradients far above Adam's epsilon, level with it, and far below.
@pytest.mark.parametrize("scale", [1.0, 1e-7, 1e-10])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_deferred_adam_gives_what_dense_adam_gives(scale: float, decay: float) -> None:
    expected = train_dense(decay, scale, torch.optim.AdamW)
    found = table()
    rows = rows_of(found, DeferredAdam(E, rate=RATE), decay)
    train_rows(rows, scale)
    rows.settle()
    moved = (expected - table().weight.detach()).abs().max()
    assert moved > (0.1 if scale > 1e-9 else 0.01)
    assert (found.weight - expected).abs().max() < 2e-4 * moved


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_deferred_adam_gives_what_dense_adam_gives_while_rates_fall_and_gradients_are_clamped(
    decay: float,
) -> None:
    dense, found = table(), table()
    told = torch.optim.AdamW(dense.parameters(), lr=RATE, weight_decay=decay)
    rows = rows_of(found, DeferredAdam(E, rate=RATE), decay)
    for number, row_n in enumerate(batches()):
        share = 1 - number / STEPS
        told.param_groups[0]["lr"] = RATE * share
        told.zero_grad()
        loss(dense(row_n), 1.0).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_value_(dense.parameters(), 0.5)
        told.step()
        loss(rows(row_n), 1.0).backward()  # type: ignore[no-untyped-call]
        rows.step(share, clamp=0.5)
    rows.settle()
    moved = (dense.weight - table().weight).abs().max()
    assert moved > 0.1
    assert (found.weight - dense.weight).abs().max() < 2e-4 * moved


def test_a_row_is_up_to_date_when_it_is_read() -> None:
    """Dense Adam would have pushed it on since; the copy lent to the model has been, the table not yet."""
    found, dense = table(), table()
    rows = rows_of(found, DeferredAdam(E, rate=RATE))
    told = torch.optim.AdamW(dense.parameters(), lr=RATE, weight_decay=0.0)
    for row in (5, 7, 7, 7, 7, 7):
        told.zero_grad()
        loss(dense(torch.tensor([row])), 1.0).backward()  # type: ignore[no-untyped-call]
        told.step()
    train_rows(rows, 1.0, [torch.tensor([row]) for row in (5, 7, 7, 7, 7, 7)])
    behind = found.weight[5].clone()
    lent = rows(torch.tensor([5])).detach()[0]
    torch.testing.assert_close(lent, dense.weight[5].detach(), rtol=1e-5, atol=1e-6)
    assert (lent - behind).abs().max() > RATE


def test_lazy_adam_is_torchs_sparse_adam() -> None:
    found, reference = table(), table()
    reference.sparse = True
    told: torch.optim.Optimizer = torch.optim.SparseAdam(list(reference.parameters()), lr=RATE)
    for row_n in batches():
        told.zero_grad()
        loss(reference(row_n), 1.0).backward()  # type: ignore[no-untyped-call]
        told.step()
    rows = rows_of(found, LazyAdam(E, rate=RATE))
    train_rows(rows)
    torch.testing.assert_close(found.weight.detach(), reference.weight.detach(), rtol=1e-5, atol=1e-5)


def test_rowwise_adagrad_keeps_its_equation() -> None:
    found, plain_RE = table(), table().weight.detach()
    rows = rows_of(found, RowwiseAdagrad(rate=RATE))
    train_rows(rows, steps=batches(30))
    sums = [0.0] * R
    for row_n in batches(30):
        leaf_RE = plain_RE.clone().requires_grad_()
        loss(leaf_RE[row_n], 1.0).backward()  # type: ignore[no-untyped-call]
        assert leaf_RE.grad is not None
        for row in set(row_n.tolist()):
            grad_E = leaf_RE.grad[row]
            sums[row] += float((grad_E**2).mean())
            plain_RE[row] -= RATE * grad_E / (sums[row] ** 0.5 + 1e-10)
    torch.testing.assert_close(found.weight.detach(), plain_RE, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rule", [LazyAdam(E, rate=RATE), RowwiseAdagrad(rate=RATE)])
def test_decay_of_skipped_steps_is_caught_up(rule: RowRule) -> None:
    found = table()
    rows = rows_of(found, rule, decay=1.0)
    train_rows(rows, 1.0, batches(50))
    rows.settle()
    expected_E = table().weight[R - 1].detach() * 0.99**50  # never read
    torch.testing.assert_close(found.weight[R - 1].detach(), expected_E)


def test_rows_read_twice_in_one_step_move_once_by_the_sum_of_gradients() -> None:
    once, twice = table(), table()
    first, second = (rows_of(t, DeferredAdam(E, rate=RATE)) for t in (once, twice))
    for row_n in batches(20):
        loss(first(torch.cat([row_n, row_n[:4]])), 1.0).backward()  # type: ignore[no-untyped-call]
        first.step()
        (loss(second(row_n), 1.0) + loss(second(row_n[:4]), 1.0)).backward()  # type: ignore[no-untyped-call]
        second.step()
    torch.testing.assert_close(once.weight, twice.weight)


def test_training_goes_on_from_a_saved_state_as_if_it_had_never_stopped() -> None:
    whole, stopped, resumed = table(), table(), table()
    steps = batches(60)
    train_rows(rows_of(whole, DeferredAdam(E, rate=RATE), 0.1), steps=steps)
    before = rows_of(stopped, DeferredAdam(E, rate=RATE), 0.1)
    train_rows(before, steps=steps[:25])
    after = rows_of(resumed, DeferredAdam(E, rate=RATE), 0.1)
    with torch.no_grad():
        resumed.weight.copy_(stopped.weight)
    after.load({name: tensor.clone() for name, tensor in before.state().items()})
    train_rows(after, steps=steps[25:])
    assert torch.equal(whole.weight, resumed.weight)


def test_rows_that_nobody_reads_are_not_touched() -> None:
    found = table()
    rows = rows_of(found, DeferredAdam(E, rate=RATE))
    train_rows(rows)
    rows.settle()
    assert torch.equal(found.weight[-2:], table().weight[-2:])


def test_a_decay_too_strong_for_rows_is_refused() -> None:
    with pytest.raises(SettingError, match="embedding_optimiser=adam"):
        TableRows(table(), LazyAdam(E, rate=RATE), keep=0.9, ranks=ALONE)
