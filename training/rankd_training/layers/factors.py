"""The second-order term of a factorization machine (Rendle, 2010), in time linear in the number of slots.

Equation 5's lemma: sum_{i<j} <v_i, v_j> x_i x_j = 1/2 sum_f [ (sum_i v_if x_i)^2 - sum_i (v_if x_i)^2 ].
Both sums are sums over the two sides, so the user's are computed once per user row.

Legend: R user rows, N candidates, S slots, E factors, T tasks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["FactorInteraction", "pairwise_products", "slot_sum"]


class FactorInteraction(nn.Module):
    """logit_t = sum_f p_ft b_f, where b_f is the sum of all pairs' products of factor f.

    The paper's machine has one task and no p, which is p = 1. With several tasks and p fixed, all tasks
    would have the same interactions, so p is then learned, from 1.
    """

    def __init__(self, width: int, num_tasks: int, *, weighted: bool | None) -> None:
        """`weighted` None learns p where there are several tasks."""
        super().__init__()
        learned = num_tasks > 1 if weighted is None else weighted
        self.num_tasks = num_tasks
        self.weight_ET = nn.Parameter(torch.ones(width, num_tasks)) if learned else None

    def forward(self, user_RSE: Tensor, item_NSE: Tensor, row_N: Tensor) -> Tensor:
        """-> logits [N, T], or [N, 1] that all tasks share where p is fixed."""
        product_NE = pairwise_products(user_RSE, item_NSE, row_N)
        if self.weight_ET is None:
            return product_NE.sum(1, keepdim=True)
        return torch.matmul(product_NE, self.weight_ET)


def pairwise_products(user_RSE: Tensor, item_NSE: Tensor, row_N: Tensor) -> Tensor:
    """Sum over all pairs of slots of their products, factor by factor -> [N, E]."""
    sum_NE = slot_sum(user_RSE, item_NSE, row_N)
    square_NE = slot_sum(user_RSE * user_RSE, item_NSE * item_NSE, row_N)
    return 0.5 * (sum_NE * sum_NE - square_NE)


def slot_sum(user_RSE: Tensor, item_NSE: Tensor, row_N: Tensor) -> Tensor:
    """Sum over all slots -> [N, E]."""
    item_NE = item_NSE.sum(1)
    if not user_RSE.shape[1]:  # a table without users
        return item_NE
    return user_RSE.sum(1).index_select(0, row_N) + item_NE
