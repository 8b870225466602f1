from __future__ import annotations

import pytest
import torch

from rankd_training.layers.normalised import BatchNorm, NormalisedHead


@pytest.mark.parametrize("shape", [(1, 4), (1, 4, 3)])
def test_a_batch_of_one_row_takes_the_running_statistics_and_leaves_them(shape: tuple[int, ...]) -> None:
    norm, x = BatchNorm(4).train(), torch.randn(shape)
    trained = norm(x)
    assert torch.equal(norm.eval()(x), trained)
    assert norm.num_batches_tracked == 0


def test_a_batch_is_normalised_by_its_own_spread() -> None:
    y = BatchNorm(4).train()(torch.randn(64, 4) * 5 + 3)
    torch.testing.assert_close(y.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(4), atol=1e-4, rtol=0)


def test_a_head_has_a_norm_a_layer_and_one_linear_less_than_widths() -> None:
    head = NormalisedHead((8, 4), 3, dropout=0.0)
    assert [p.numel() for p in head.layers.parameters()] == [8, 8, 32, 4, 4, 4]
    assert head(torch.randn(5, 8)).shape == (5, 3)
