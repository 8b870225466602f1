"""The optimiser of a run: AdamW for what every row of a batch uses, one of four ways for tables of ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from rankd_training.errors import SettingError
from rankd_training.layers.embedding import FeatureEmbedding
from rankd_training.layers.pairs import PairGroup
from rankd_training.learning.ranks import ALONE, Ranks
from rankd_training.learning.row_rules import DeferredAdam, LazyAdam, RowRule, RowwiseAdagrad
from rankd_training.learning.table_rows import TableRows
from rankd_training.learning.weight_average import WeightAverage
from rankd_training.runs.spread import Spread
from rankd_training.settings import TrainSettings

__all__ = ["DENSE_ROWS", "Optimisers"]

# Below it, moving the whole table costs no more than finding and moving a batch's rows: with 39 ids of width
# 16 the two cost the same at 100,000 rows in batches of 512, at 400,000 in batches of 4096 (one core).
DENSE_ROWS = 200_000
AVERAGE = "average."


class Optimisers:
    """Everything that moves a model's weights. Tables that go row by row are read through it in training.

    Attributes:
        tables: those that go row by row.
        average: of the weights, where `average_decay` asks for one.

    Raises SettingError where a table's decay is too strong for its optimiser, or it cannot be averaged.
    """

    def __init__(self, model: nn.Module, settings: TrainSettings, ranks: Ranks) -> None:
        self._ranks = ranks
        self._clamp = settings.gradient_clamp
        self.tables: list[TableRows] = []
        self._embeddings: list[FeatureEmbedding] = []
        for module in model.modules():
            if isinstance(module, FeatureEmbedding):
                rule = _rule(module, settings)
                if rule is not None:
                    keep = 1 - table_rate(settings) * (settings.embedding_decay or 0.0)
                    # The gradients of rows that lie here alone come from all processes as they are.
                    others = ALONE if module.spread else ranks
                    self.tables.append(TableRows(module.table, rule, keep=keep, ranks=others))
                    module.train_through(self.tables[-1])
                    self._embeddings.append(module)
        self._dense = _adamw(model, settings)
        self.average = _average(model, settings, self.tables)
        self._rates = [float(group["lr"]) for group in self._dense.param_groups]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self._dense.zero_grad()
        for table in self.tables:
            table.forget()

    def step(self, rate_share: float = 1.0) -> None:
        """Move all weights by their gradients, summed over all processes, at a share of their rates."""
        parameters = [p for group in self._dense.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        self._ranks.add_up(gradients)
        if self._clamp is not None:
            for gradient in gradients:
                gradient.clamp_(-self._clamp, self._clamp)
        for group, rate in zip(self._dense.param_groups, self._rates, strict=True):
            group["lr"] = rate * rate_share
        self._dense.step()
        for table in self.tables:
            table.step(rate_share, clamp=self._clamp)
        if self.average is not None:
            self.average.step()

    def settle(self) -> None:
        """Bring every table up to date, before it is judged, changed or kept."""
        for table in self.tables:
            table.settle()

    def judged(self) -> AbstractContextManager[None]:
        """Let the model have the weights that are judged and kept: their average, where there is one."""
        return nullcontext() if self.average is None else self.average.in_place()

    def release(self) -> None:
        """Let go of all memory; training is over."""
        for embedding in self._embeddings:
            embedding.train_through(None)
        self._embeddings.clear()
        self.tables.clear()
        self.average = None
        self._dense.state.clear()

    def state(self) -> dict[str, Tensor | Spread]:
        """Return what `load` needs, by name; large tensors are the optimisers' own and not copied."""
        named: dict[str, Tensor | Spread] = {}
        for at, entry in self._dense.state_dict()["state"].items():
            named |= {f"dense.{at}.{key}": value for key, value in entry.items()}
        for number, table in enumerate(self.tables):
            for key, value in table.state().items():
                named[f"table.{number}.{key}"] = self._spread(number, key, value)
        if self.average is not None:
            named |= {AVERAGE + name: value for name, value in self.average.state().items()}
        return named

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from the state of an equal model under equal settings."""
        if self.average is not None:
            mean = {n.removeprefix(AVERAGE): value for n, value in state.items() if n.startswith(AVERAGE)}
            self.average.load(mean)
        entries: dict[int, dict[str, Tensor]] = {}
        tables: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            if name.startswith(AVERAGE):
                continue
            kind, owner, key = name.split(".", 2)
            (entries if kind == "dense" else tables).setdefault(int(owner), {})[key] = value
        self._dense.load_state_dict({**self._dense.state_dict(), "state": entries})
        for number, table in enumerate(self.tables):
            held = self._embeddings[number].held
            for key in table.by_row:
                tables[number][key] = tables[number][key][held]
            table.load(tables[number])

    def _spread(self, number: int, key: str, value: Tensor) -> Tensor | Spread:
        embedding = self._embeddings[number]
        if not embedding.spread or key not in self.tables[number].by_row:
            return value
        return Spread(value, embedding.held.start, embedding.num_rows, self._ranks.in_turn)


def _rule(embedding: FeatureEmbedding, settings: TrainSettings) -> RowRule | None:
    chosen = settings.embedding_optimiser
    if chosen == "auto":
        small = embedding.num_rows < DENSE_ROWS and not embedding.spread
        chosen = "adam" if small else "deferred_adam"
    rate = table_rate(settings)
    match chosen:
        case "deferred_adam":
            return DeferredAdam(embedding.width, rate=rate)
        case "lazy_adam":
            return LazyAdam(embedding.width, rate=rate)
        case "rowwise_adagrad":
            return RowwiseAdagrad(rate=rate)
    return None


def _average(model: nn.Module, settings: TrainSettings, tables: Sequence[TableRows]) -> WeightAverage | None:
    if settings.average_decay == 0:
        return None
    if tables:
        raise SettingError(
            "average_decay: a table that goes row by row has no average, which would touch all rows at every "
            "step; set embedding_optimiser=adam, or average_decay=0"
        )
    return WeightAverage(model, settings.average_decay)


def table_rate(settings: TrainSettings) -> float:
    return settings.embedding_learning_rate or settings.learning_rate


def _adamw(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW, which is Adam where a decay is 0.

    A table of pairs (OptInter) is an embedding as much as one of ids is: its rare rows overfit first, too.
    """
    pairs = {id(m.table.weight) for m in model.modules() if isinstance(m, PairGroup) and m.table is not None}
    embeddings: list[nn.Parameter] = []
    matrices: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:  # a table that goes row by row
            continue
        is_table = name.startswith("embedding.") or id(parameter) in pairs
        (embeddings if is_table else matrices if parameter.dim() > 1 else biases).append(parameter)
    groups = (
        {"params": embeddings, "weight_decay": settings.embedding_decay or 0.0, "lr": table_rate(settings)},
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": biases, "weight_decay": 0.0},
    )
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.learning_rate)
