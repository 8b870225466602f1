"""PLE (Tang et al., 2020, "Progressive Layered Extraction"): a task's own experts beside shared ones.

A task's gate mixes its own experts and the shared ones, never another task's (CGC, section 3). Stacked, the
shared experts have a gate over all experts, and a layer reads what the gates below it made (PLE, section 4).
In the first layer the user's part of experts and gates is computed once per user row.

What the paper leaves open, and what is done here: gates have no bias; every layer's experts have one shape;
the last layer has no shared gate, since nothing reads it.

Legend: R user rows, N candidates, S slots, E width of a slot, I numbers of a side, G groups of experts (T of
the tasks, then the shared), n experts, H width of an expert, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import ROW
from rankd_training.errors import SettingError
from rankd_training.layers.deep import side_widths
from rankd_training.layers.embedding import FeatureEmbedding
from rankd_training.layers.experts import Experts, mixed
from rankd_training.layers.heads import TaskTowers, linear
from rankd_training.layers.split import SplitLinear, flat

__all__ = ["PLE", "PLEConfig"]


@dataclass(frozen=True, slots=True)
class PLEConfig:
    """The paper searches sizes; these hold about as many parameters as `MMoEConfig`.

    Attributes:
        embedding_width: E, numbers a slot.
        layers: extraction layers; 1 is CGC.
        task_experts: experts of each task's own, a layer.
        shared_experts: experts that all tasks share, a layer.
        expert_hidden: widths of each expert, at least one.
        tower_hidden: widths of each task's tower.
        dropout: share of units dropped in experts and towers. Ours.
        embedding_std: initial standard deviation of embeddings, None for Xavier-uniform. Ours, as in MLCC.
    """

    embedding_width: int = 16
    layers: int = 2
    task_experts: int = 2
    shared_experts: int = 2
    expert_hidden: tuple[int, ...] = (128, 64)
    tower_hidden: tuple[int, ...] = (32,)
    dropout: float = 0.2
    embedding_std: float | None = 0.01


class PLE(nn.Module):
    """Extraction layers, then a tower a task: y^k = t^k( g^{k,L}(x) ), equation 8."""

    def __init__(self, schema: FeatureSchema, config: PLEConfig) -> None:
        super().__init__()
        for name in ("layers", "task_experts", "shared_experts"):
            if getattr(config, name) < 1:
                raise SettingError(f"{name}: expected at least 1, got {getattr(config, name)}")
        self.schema, self.config, num_tasks = schema, config, len(schema.tasks)
        self.embedding = FeatureEmbedding(schema, config.embedding_width, std=config.embedding_std)
        self.user_width, self.item_width = side_widths(self.embedding)
        cores = [
            _Extraction(num_tasks, config, last=layer == config.layers)
            for layer in range(1, config.layers + 1)
        ]
        self.first = _FirstLayer(self.user_width, self.item_width, cores[0])
        self.rest = nn.ModuleList(_FurtherLayer(core) for core in cores[1:])
        width = config.expert_hidden[-1]
        self.towers = TaskTowers(num_tasks, width, config.tower_hidden, dropout=config.dropout)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Inputs by signature name -> logits [N, T]."""
        user_RSE, item_NSE = self.embedding(features)
        user_RI, item_NI = flat(user_RSE), flat(item_NSE)
        groups: list[Tensor] = self.first(user_RI, item_NI, features[ROW])
        for layer in self.rest:
            groups = layer(groups)
        logits: Tensor = self.towers(groups)
        return logits

    def output_biases(self) -> list[Tensor]:
        """Return the constants of the logits, T numbers in all."""
        return self.towers.output_biases()


class _Extraction(nn.Module):
    """A layer after the experts' first Linears and the gates' scores: what each gate makes of its experts."""

    def __init__(self, num_tasks: int, config: PLEConfig, *, last: bool) -> None:
        super().__init__()
        self.sizes = [config.task_experts] * num_tasks + [config.shared_experts]
        own = config.task_experts + config.shared_experts
        self.gate_sizes = [own] * num_tasks + ([] if last else [sum(self.sizes)])
        self.experts = Experts(sum(self.sizes), config.expert_hidden, dropout=config.dropout)

    def forward(self, first_NX: Tensor, gates: Sequence[Tensor]) -> list[Tensor]:
        """All groups' first Linears side by side, and scores [N, n] a gate -> [N, H] a gate."""
        expert_NnH = self.experts(first_NX)
        groups = torch.split(expert_NnH, self.sizes, dim=1)
        # S^k(x): a task's own experts and the shared ones, equation 2; all of them for the shared gate.
        selected = [torch.cat([mine, groups[-1]], dim=1) for mine in groups[:-1]] + [expert_NnH]
        # g^k(x) = softmax( W_g^k x ) S^k(x), equations 1 and 5
        return [
            mixed(gate_Nn.unsqueeze(1), seen_NnH).squeeze(1)
            for gate_Nn, seen_NnH in zip(gates, selected, strict=False)  # the last layer has no shared gate
        ]


class _FirstLayer(nn.Module):
    """All experts and gates read the fields themselves, so their first Linears are one, split by sides."""

    def __init__(self, user_width: int, item_width: int, core: _Extraction) -> None:
        super().__init__()
        self.core = core
        experts = core.experts
        self.first = SplitLinear(user_width, item_width, experts.num * experts.first_width)
        self.gate = SplitLinear(user_width, item_width, sum(core.gate_sizes), bias=False)

    def forward(self, user_RI: Tensor, item_NI: Tensor, row_N: Tensor) -> list[Tensor]:
        """-> [N, H] a gate."""
        gates = torch.split(self.gate(user_RI, item_NI, row_N), self.core.gate_sizes, dim=1)
        made: list[Tensor] = self.core(self.first(user_RI, item_NI, row_N), gates)
        return made


class _FurtherLayer(nn.Module):
    """A group's experts and its gate read what the group's gate made below, equation 6."""

    def __init__(self, core: _Extraction) -> None:
        super().__init__()
        self.core = core
        width, first_width = core.experts.out_width, core.experts.first_width
        self.firsts = nn.ModuleList(linear(width, size * first_width) for size in core.sizes)
        self.gates = nn.ModuleList(_gate(width, size) for size in core.gate_sizes)

    def forward(self, groups: Sequence[Tensor]) -> list[Tensor]:
        """[N, H] a group -> [N, H] a gate."""
        first_NX = torch.cat([first(x) for first, x in zip(self.firsts, groups, strict=True)], dim=1)
        gates = [gate(x) for gate, x in zip(self.gates, groups, strict=False)]  # the last: no shared gate
        made: list[Tensor] = self.core(first_NX, gates)
        return made


def _gate(width: int, num_experts: int) -> nn.Linear:
    layer = nn.Linear(width, num_experts, bias=False)
    nn.init.xavier_uniform_(layer.weight)
    return layer
