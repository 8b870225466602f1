"""Trains a table of embeddings row by row: a step costs what its batch reads, not what the table holds.

A batch's rows are copied once each and brought up to date by a rule (`row_rules.py`); the model computes with
the copy; after the backward pass the rule moves the copy on and it is written back. In between, rows that
nobody read lie behind; `settle` brings all of them up to date, before anything else reads the table.

Legend: R rows of the table, n places that a batch reads, U rows among them without repetition, E width,
S numbers of state a row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rankd_training.errors import SettingError
from rankd_training.learning.ranks import Ranks
from rankd_training.learning.row_rules import GROWTH, NOTHING, RowRule

__all__ = ["WEAKEST_KEEP", "TableRows"]

AT_ONCE = 1 << 14  # rows: what is worked out for that many at once stays in the processor's cache
# Below it a row forgets faster than a rule's sums over skipped steps end.
WEAKEST_KEEP = 0.95


@dataclass(frozen=True, slots=True)
class _Lent:
    """Rows that a forward pass computes with."""

    row_U: Tensor
    weight_UE: Tensor
    state_US: Tensor


class TableRows:
    """The rows of one table in training. Call it to read rows, then `step`.

    Args:
        table: its weights are changed in place; they need no gradient of their own any more.
        rule: how a row moves.
        keep: the share of a weight that decay leaves at each full step, read or not.
        ranks: processes that train equal copies of this table; their gradients are added up.

    Raises:
        SettingError: `keep` is too small.
    """

    # What `state` has a row of for each of the table's.
    by_row = ("state", "last")

    def __init__(self, table: nn.Embedding, rule: RowRule, *, keep: float, ranks: Ranks) -> None:
        if not WEAKEST_KEEP <= keep <= 1:
            raise SettingError(
                f"learning_rate x embedding_decay takes {1 - keep:.3g} of every row at each step; row by row "
                f"0 to {1 - WEAKEST_KEEP:.2g} works: lower embedding_decay, or set embedding_optimiser=adam"
            )
        self._weight_RE = table.weight.requires_grad_(False)
        self._rule, self._keep, self._ranks = rule, keep, ranks
        # Zeros cost no memory until they are written.
        self._state_RS = torch.zeros(len(self._weight_RE), rule.state_width)
        self._last_R = torch.zeros(len(self._weight_RE), dtype=torch.int32)
        self._step = 0
        # log of what decay has left of a weight after each step; differences say what steps in between take.
        self._log_kept_T = torch.zeros(GROWTH, dtype=torch.float64)
        self._lent: list[_Lent] = []

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # the number of rows varies too much
    def __call__(self, rows: Tensor) -> Tensor:
        """Rows of any shape -> their vectors, through which gradients reach `step`."""
        row_U, place_n = torch.unique(rows.reshape(-1), return_inverse=True)
        lent = self._borrow(row_U.long())
        lent.weight_UE.requires_grad_()
        self._lent.append(lent)
        # Its backward pass adds rows up three times as fast as that of `functional.embedding`.
        return lent.weight_UE.index_select(0, place_n).view(*rows.shape, lent.weight_UE.shape[1])

    def forget(self) -> None:
        """Drop what was read since the last step."""
        self._lent.clear()

    @torch.no_grad()
    def step(self, rate_share: float = 1.0, *, clamp: float | None = None) -> None:
        """Move the rows that were read since the last step; for the others one more step has passed.

        Args:
            rate_share: of the rule's learning rate, and with it of decay.
            clamp: bound of every element of a row's gradient, either way.
        """
        moved = [(lent, lent.weight_UE.grad) for lent in self._lent]
        self.forget()
        parts = [(lent, grad_UE) for lent, grad_UE in moved if grad_UE is not None]
        if self._ranks.many or _overlap([lent.row_U for lent, _ in parts]):
            parts = [self._added_up(parts)]
        self._step += 1
        keep = 1 - (1 - self._keep) * rate_share
        self._note_kept(keep)
        for lent, grad_UE in parts:
            parts_UE = (lent.weight_UE.detach(), lent.state_US, grad_UE)
            for weight_UE, state_US, part_UE in zip(*map(_pieces, parts_UE), strict=True):
                if keep < 1:
                    weight_UE.mul_(keep)
                bounded_UE = part_UE if clamp is None else part_UE.clamp(-clamp, clamp)
                self._rule.move(weight_UE, state_US, bounded_UE, self._step, rate_share)
            self._give_back(lent)
        self._rule.end_step(self._step, rate_share, keep)

    @torch.no_grad()
    def settle(self) -> None:
        """Bring every row up to date, as reading it would."""
        self.forget()
        for at, last_U in enumerate(_pieces(self._last_R)):
            late_U = last_U < self._step
            if self._keep == 1:
                late_U &= last_U > 0  # a row that never moved owes nothing
            if late_U.any():
                self._give_back(self._borrow(at * AT_ONCE + late_U.nonzero().squeeze(1)))

    def state(self) -> dict[str, Tensor]:
        """Return what `load` needs; the tensors are this object's own. The weights are not among them."""
        own = {"state": self._state_RS, "last": self._last_R, "step": torch.tensor(self._step)}
        own["log_kept"] = self._log_kept_T
        return {**own, **self._rule.state()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from the state of an equal table under an equal rule."""
        self._state_RS.copy_(state["state"])
        self._last_R.copy_(state["last"])
        self._step = int(state["step"])
        self._log_kept_T = state["log_kept"].clone()
        self._rule.load(state)

    @torch.no_grad()
    def _borrow(self, row_U: Tensor) -> _Lent:
        whole = [t.index_select(0, row_U) for t in (self._weight_RE, self._state_RS, self._last_R)]
        for weight_UE, state_US, last_U in zip(*map(_pieces, whole), strict=True):
            skipped_U = self._step - last_U
            if self._keep < 1:
                weight_UE.mul_(self._kept_since(last_U).unsqueeze(1))
            self._rule.catch_up(weight_UE, state_US, last_U, skipped_U)
        return _Lent(row_U, whole[0], whole[1])

    def _note_kept(self, keep: float) -> None:
        if self._step >= len(self._log_kept_T):
            self._log_kept_T = torch.cat([self._log_kept_T, torch.zeros_like(self._log_kept_T)])
        self._log_kept_T[self._step] = self._log_kept_T[self._step - 1] + math.log(keep)

    def _kept_since(self, last_U: Tensor) -> Tensor:
        """What decay has left of rows that were up to date at `last_U`; 0 where it is below 1e-12."""
        kept_U = torch.exp(self._log_kept_T[self._step] - self._log_kept_T.index_select(0, last_U)).float()
        return kept_U.masked_fill_(kept_U < NOTHING, 0.0)

    def _give_back(self, lent: _Lent) -> None:
        self._weight_RE.index_copy_(0, lent.row_U, lent.weight_UE.detach())
        self._state_RS.index_copy_(0, lent.row_U, lent.state_US)
        self._last_R[lent.row_U] = self._step

    def _added_up(self, parts: Sequence[tuple[_Lent, Tensor]]) -> tuple[_Lent, Tensor]:
        """Rows that were read twice, or by several processes, move once, by the sum of their gradients."""
        row_n = torch.cat([lent.row_U for lent, _ in parts])
        row_n, grad_nE = self._ranks.join_rows(row_n, torch.cat([grad_UE for _, grad_UE in parts]))
        row_U, place_n = torch.unique(row_n, return_inverse=True)
        grad_UE = grad_nE.new_zeros(len(row_U), grad_nE.shape[1]).index_add_(0, place_n, grad_nE)
        return self._borrow(row_U), grad_UE


def _pieces(of_U: Tensor) -> tuple[Tensor, ...]:
    return torch.split(of_U, AT_ONCE)


def _overlap(parts: Sequence[Tensor]) -> bool:
    return len(parts) > 1 and len(torch.unique(torch.cat(list(parts)))) < sum(map(len, parts))
