"""How one row of a table moves, and how it catches up on the steps in which nobody read it.

Adam (Kingma and Ba, 2015, algorithm 1; decay as in Loshchilov and Hutter, 2019, algorithm 2) moves a row
without a gradient too: its moments fade, and the first one still pushes. With t the last step at
which the row was up to date, j the steps since and q = 1 - rate * decay, such a step is

    w <- q w - c_(t+j) b1^j m_t / (b2^(j/2) sqrt(v_t) + eps e_(t+j)),
    e_s = sqrt(1 - b2^s),  c_s = rate e_s / (1 - b1^s),

so after k of them, with a_j = c_(t+j) (b1 / sqrt(b2))^j and f_j = e_(t+j) / b2^(j/2),

    w_(t+k) = q^k w_t - m_t sum_j q^(k-j) a_j / (sqrt(v_t) + eps f_j).

`DeferredAdam` adds that up at once when the row is next read. f_j hardly varies where a_j counts, so its mean
under the weights q^(k-j) a_j stands for it: the only approximation, which vanishes with eps.
Where rates fall, q and the rate in c_s are those of their step.

Legend: U rows moved together, E width, S numbers of state a row, T steps, H steps within the horizon.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["DeferredAdam", "LazyAdam", "RowRule", "RowwiseAdagrad", "powers"]

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
ADAGRAD_EPS = 1e-10

# Steps after which the push of a first moment is below 1e-10 of what it was.
HORIZON = 256
# A factor below it is taken for 0: the result would be the same, and denormal numbers are slow.
NOTHING = 1e-12
GROWTH = 1024


class RowRule(Protocol):
    """One way to move rows. All tensors but gradients are changed in place; decay is the caller's."""

    state_width: int

    def catch_up(self, weight_UE: Tensor, state_US: Tensor, last_U: Tensor, skipped_U: Tensor) -> None:
        """Add the `skipped_U` steps after `last_U` to weights that are already decayed for them."""

    def move(self, weight_UE: Tensor, state_US: Tensor, grad_UE: Tensor, step: int, share: float) -> None:
        """Take step number `step` (from 1) at a share of the rate, with weights already decayed for it."""

    def end_step(self, step: int, share: float, keep: float) -> None:
        """Note what this step owes to the rows that did not take part.

        Args:
            step: its number.
            share: of the rate at this step.
            keep: q of this step.
        """

    def state(self) -> Mapping[str, Tensor]:
        """Return what a rule knows beside the rows' own state; the tensors are its own."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from the state of an equal rule."""


class DeferredAdam:
    """Dense AdamW's results, up to rounding and the approximation above, at the cost of the rows read.

    Args:
        width: E.
        rate: the full learning rate.
    """

    def __init__(self, width: int, *, rate: float) -> None:
        self.state_width = 2 * width
        self._rate = rate
        # By t: sum_j q^(k-j) a_j, and the same sum with a_j f_j.
        self._push_T = torch.zeros(GROWTH, dtype=torch.float64)
        self._push_f_T = torch.zeros(GROWTH, dtype=torch.float64)

    def catch_up(self, weight_UE: Tensor, state_US: Tensor, last_U: Tensor, skipped_U: Tensor) -> None:
        """Push by the first moment, as the equation above; let both moments fade."""
        m_UE, v_UE = state_US.chunk(2, dim=1)
        push_U = self._push_T.index_select(0, last_U)
        # Where nothing was skipped both sums are 0, and so is the first moment of a row that never moved.
        mean_f_U = self._push_f_T.index_select(0, last_U) / push_U.clamp(min=1e-300)
        below_UE = _root(v_UE).add_(_column(EPS * mean_f_U).clamp_(min=1e-30))
        weight_UE.sub_(m_UE.div(below_UE).mul_(_column(push_U)))
        m_UE.mul_(_column(powers(BETA1, skipped_U)))
        v_UE.mul_(_column(powers(BETA2, skipped_U)))

    def move(self, weight_UE: Tensor, state_US: Tensor, grad_UE: Tensor, step: int, share: float) -> None:
        """Take an ordinary step."""
        _adam(weight_UE, state_US, grad_UE, self._rate * share, step)

    def end_step(self, step: int, share: float, keep: float) -> None:
        """Add this step to the sums of every t before it."""
        if step >= len(self._push_T):
            more_T = torch.zeros(len(self._push_T), dtype=torch.float64)
            self._push_T, self._push_f_T = (torch.cat([t, more_T]) for t in (self._push_T, self._push_f_T))
        e = math.sqrt(1 - BETA2**step)
        since = max(0, step - HORIZON)
        j_H = torch.arange(step - since, 0, -1, dtype=torch.float64)
        a_H = self._rate * share * e / (1 - BETA1**step) * (BETA1 / math.sqrt(BETA2)) ** j_H
        for sum_T, term_H in ((self._push_T, a_H), (self._push_f_T, a_H * e / BETA2 ** (j_H / 2))):
            if keep < 1:
                sum_T[:step].mul_(keep)
            sum_T[since:step].add_(term_H)

    def state(self) -> dict[str, Tensor]:
        """Return the sums."""
        return {"push": self._push_T, "push_f": self._push_f_T}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue."""
        self._push_T, self._push_f_T = state["push"].clone(), state["push_f"].clone()


class LazyAdam:
    """Adam whose moments stand still while a row is not read, as torch's SparseAdam.

    A row that is read once moves by about 3 rates; dense Adam goes on to 30, pushed by its first moment.
    """

    def __init__(self, width: int, *, rate: float) -> None:
        self.state_width = 2 * width
        self._rate = rate

    def catch_up(self, weight_UE: Tensor, state_US: Tensor, last_U: Tensor, skipped_U: Tensor) -> None:
        """Skipped steps do nothing."""

    def move(self, weight_UE: Tensor, state_US: Tensor, grad_UE: Tensor, step: int, share: float) -> None:
        """Take an ordinary step; biases are corrected by the count of all steps."""
        _adam(weight_UE, state_US, grad_UE, self._rate * share, step)

    def end_step(self, step: int, share: float, keep: float) -> None:
        """Nothing is owed."""

    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to continue."""


class RowwiseAdagrad:
    """Adagrad (Duchi et al., 2011) with one sum of squares a row: 4 bytes of state instead of 8 E.

    w <- w - rate g / (sqrt(sum over steps of mean_E(g^2)) + 1e-10), as large recommenders train their tables.
    """

    state_width = 1

    def __init__(self, *, rate: float) -> None:
        self._rate = rate

    def catch_up(self, weight_UE: Tensor, state_US: Tensor, last_U: Tensor, skipped_U: Tensor) -> None:
        """Skipped steps do nothing."""

    def move(self, weight_UE: Tensor, state_US: Tensor, grad_UE: Tensor, step: int, share: float) -> None:
        """Take a step."""
        state_US.add_(grad_UE.square().mean(1, keepdim=True))
        weight_UE.sub_(grad_UE.mul(self._rate * share / (state_US.sqrt() + ADAGRAD_EPS)))

    def end_step(self, step: int, share: float, keep: float) -> None:
        """Nothing is owed."""

    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to continue."""


def powers(base: float, exponent_U: Tensor) -> Tensor:
    """base^exponent for a base of at most 1, 0 where it is below 1e-12."""
    power_U = torch.exp(exponent_U * math.log(base))
    return power_U.masked_fill_(power_U < NOTHING, 0.0)


def _adam(weight_UE: Tensor, state_US: Tensor, grad_UE: Tensor, rate: float, step: int) -> None:
    m_UE, v_UE = state_US.chunk(2, dim=1)
    m_UE.lerp_(grad_UE, 1 - BETA1)
    v_UE.mul_(BETA2).addcmul_(grad_UE, grad_UE, value=1 - BETA2)
    below_UE = _root(v_UE).mul_(1 / math.sqrt(1 - BETA2**step)).add_(EPS)
    weight_UE.addcdiv_(m_UE, below_UE, value=-rate / (1 - BETA1**step))


def _root(v_UE: Tensor) -> Tensor:
    return torch.sqrt(v_UE.contiguous())  # with gaps between the rows torch takes roots row by row


def _column(of_U: Tensor) -> Tensor:
    return of_U.float().unsqueeze(1)
