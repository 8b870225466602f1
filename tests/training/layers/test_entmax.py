from __future__ import annotations

import logging
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rankd_training.layers.entmax import entmax, entmax_by_bisection

FAST = (1.5, 2.0)


def exactly(scores: Tensor, alpha: float, dim: int = -1) -> Tensor:
    """The definition in float64."""
    if alpha == 1:
        return torch.softmax(scores.double(), dim)
    return entmax_by_bisection(scores.double(), alpha, dim, rounds=50)


@st.composite
def scores(draw: st.DrawFn) -> Tensor:
    """Rows of many widths and scales; with ties, equal entries, far outliers, or each just below tau."""
    rows, width = draw(st.integers(1, 4)), draw(st.integers(1, 64))
    scale = draw(st.sampled_from([0.0, 1e-6, 1e-3, 0.05, 0.3, 1.0, 10.0, 1e4]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    found = torch.randn(rows, width, generator=generator) * scale
    match draw(st.sampled_from(["normal", "ties", "powers", "outlier", "far"])):
        case "ties":
            found = found.round(decimals=1)
        case "powers":
            found = -scale * draw(st.floats(0.1, 0.99)) ** torch.arange(width).expand(rows, -1)
        case "outlier":
            found[:, 0] += 1.0
        case "far":
            found = found + 1e4
    return found


@settings(max_examples=150, deadline=None)
@given(s=scores(), alpha=st.sampled_from(FAST))
def test_the_fast_forms_equal_fifty_rounds_of_bisection(s: Tensor, alpha: float) -> None:
    torch.testing.assert_close(entmax(s, alpha).double(), exactly(s, alpha), atol=1e-6, rtol=0)


@settings(max_examples=60, deadline=None)
@given(s=scores(), alpha=st.sampled_from([1.0, 1.25, 1.5, 1.7, 2.0, 2.5, 4.0]))
def test_rows_are_probabilities_for_every_alpha(s: Tensor, alpha: float) -> None:
    p = entmax(s, alpha)
    assert p.min() >= 0
    torch.testing.assert_close(p.sum(-1), torch.ones(len(s)), atol=2e-6, rtol=0)


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
def test_a_hard_sequence_of_supports_is_followed_to_its_end(alpha: float) -> None:
    # Each entry lies just below the threshold of those before it, so every step drops one entry only.
    for size in range(1, 60):
        for start in (1e-9, 1e-6, 1e-3, 0.1):
            s, below = [0.0], start
            for k in range(1, size):
                s.append((sum(s) - 1) / k - below)
                below = min(below * k * (k + 2) / (k + 1) * 1.01, 0.5)
            row = torch.tensor([s])
            torch.testing.assert_close(entmax(row, alpha).double(), exactly(row, alpha), atol=1e-6, rtol=0)


@pytest.mark.parametrize("alpha", FAST)
@pytest.mark.parametrize("size", [100, 127, 128, 256, 1000])
def test_wide_rows_are_as_exact(alpha: float, size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    for scale in (0.0, 0.03, 0.3, 3.0):
        s = -torch.rand(50, size, generator=generator).pow(3) * scale
        torch.testing.assert_close(entmax(s, alpha).double(), exactly(s, alpha), atol=1e-6, rtol=0)


@pytest.mark.parametrize("alpha", [1.25, 1.7, 1.9])
def test_other_alphas_are_bisected_to_float32(alpha: float) -> None:
    s = torch.randn(200, 12, generator=torch.Generator().manual_seed(0)) * 2
    torch.testing.assert_close(entmax(s, alpha).double(), exactly(s, alpha), atol=1e-6, rtol=0)


@pytest.mark.parametrize("alpha", [1.0, 1.5, 1.7, 2.0, 3.0])
def test_equal_scores_are_shared_equally_and_a_single_one_takes_all(alpha: float) -> None:
    for size in (1, 2, 7, 39):
        p = entmax(torch.full((2, size), 3.7), alpha)
        torch.testing.assert_close(p, torch.full((2, size), 1 / size), atol=1e-6, rtol=0)


def test_known_answers() -> None:
    s = torch.tensor([[1.0, 0.5, -1.0]])
    torch.testing.assert_close(entmax(s, 2.0), torch.tensor([[0.75, 0.25, 0.0]]))
    torch.testing.assert_close(entmax(torch.tensor([[5.0, 3.0, 1.0]]), 1.5), torch.tensor([[1.0, 0.0, 0.0]]))


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, 1.7])
def test_a_shift_changes_nothing_and_order_is_kept(alpha: float) -> None:
    s = torch.randn(50, 9, generator=torch.Generator().manual_seed(1)).double()
    p = entmax(s, alpha)
    torch.testing.assert_close(entmax(s + 100, alpha), p)
    assert (p.gather(1, s.argsort(1)).diff(dim=1) >= -1e-12).all()


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, 1.7, 2.5])
def test_any_axis_is_the_last_one_turned(alpha: float) -> None:
    s = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(entmax(s, alpha, dim=1), entmax(s.transpose(1, 2), alpha).transpose(1, 2))


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, 1.7, 1.2])
@pytest.mark.parametrize("dim", [-1, 1])
def test_the_gradient_is_the_one_that_differences_give(alpha: float, dim: int) -> None:
    s = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(3)).double().requires_grad_()
    # Thirty rounds of bisection know tau to 1e-9, which is what a wider difference can be divided by.
    assert torch.autograd.gradcheck(lambda x: entmax(x, alpha, dim), (s,), eps=1e-4, atol=1e-4)


@pytest.mark.parametrize("alpha", [1.5, 2.0, 1.7, 3.0])
def test_fields_outside_the_support_receive_no_gradient(alpha: float) -> None:
    s = torch.tensor([[2.0, 1.9, -9.0]], requires_grad=True)
    (entmax(s, alpha) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert s.grad is not None
    assert s.grad[0, 2] == 0
    assert s.grad[0, :2].abs().min() > 0
    assert s.grad.sum().abs() < 1e-6


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, 1.7])
def test_training_and_serving_compute_the_same_numbers(alpha: float) -> None:
    s = torch.randn(40, 11, generator=torch.Generator().manual_seed(4))
    assert torch.equal(entmax(s.clone().requires_grad_(), alpha).detach(), entmax(s, alpha))


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, 1.7])
def test_the_exported_form_agrees_and_holds_neither_sort_nor_loop(alpha: float) -> None:
    graph = exported(alpha, width=11)
    assert not {"TopK", "Loop", "Scan", "If"} & {node.op_type for node in graph.graph.node}
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for rows in (1, 2, 7, 100):
        for scale in (0.01, 1.0, 20.0):
            s = torch.randn(rows, 11, 3, generator=torch.Generator().manual_seed(rows)) * scale
            (found,) = session.run(None, {"in_scores": s.numpy()})
            np.testing.assert_allclose(found, entmax(s, alpha, dim=1).numpy(), atol=1e-6, rtol=0)
            np.testing.assert_allclose(found, exactly(s, alpha, dim=1).numpy(), atol=1e-6, rtol=0)


class _Exported(nn.Module):
    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, scores: Tensor) -> Tensor:
        return entmax(scores, self.alpha, dim=1)


def exported(alpha: float, width: int) -> onnx.ModelProto:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    rows = torch.export.Dim("N", min=1, max=4096)
    with torch.no_grad():
        program: Any = torch.onnx.export(
            _Exported(alpha).eval(),
            (torch.randn(6, width, 3),),
            dynamo=True,
            input_names=["in_scores"],
            dynamic_shapes=({0: rows},),
            verbose=False,
        )
    proto: onnx.ModelProto = program.model_proto
    return proto
