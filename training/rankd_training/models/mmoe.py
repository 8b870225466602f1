"""MMoE (Ma et al., 2018, KDD, "Modeling Task Relationships in Multi-task Learning with MMoE").

Tasks share experts, and each has a gate that decides for every sample how to mix them. First layers of
experts and gates are linear in the two sides, so the user's part is computed once per user row.

What the paper leaves open, and what is done here: gates have no bias, as equation 7 is printed.

Legend: R user rows, N candidates, S slots, E width of a slot, I numbers of a side, n experts, H width of an
expert, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import ROW
from rankd_training.layers.deep import side_widths
from rankd_training.layers.embedding import FeatureEmbedding
from rankd_training.layers.experts import Experts, mixed
from rankd_training.layers.heads import TaskTowers
from rankd_training.layers.split import SplitLinear, flat

__all__ = ["MMoE", "MMoEConfig"]


@dataclass(frozen=True, slots=True)
class MMoEConfig:
    """The paper's sizes for census-income come out near: eight experts, one tower a task.

    Attributes:
        embedding_width: E, numbers a slot.
        experts: n, shared by all tasks.
        expert_hidden: widths of each expert, at least one.
        tower_hidden: widths of each task's tower.
        dropout: share of units dropped in experts and towers. Ours; the paper has none.
        embedding_std: initial standard deviation of embeddings, None for Xavier-uniform. Ours, as in MLCC.
    """

    embedding_width: int = 16
    experts: int = 8
    expert_hidden: tuple[int, ...] = (128, 64)
    tower_hidden: tuple[int, ...] = (32,)
    dropout: float = 0.2
    embedding_std: float | None = 0.01


class MMoE(nn.Module):
    """Equation 6: y_k = h^k( f^k(x) ), f^k(x) = sum_i g^k(x)_i f_i(x)."""

    def __init__(self, schema: FeatureSchema, config: MMoEConfig) -> None:
        super().__init__()
        self.schema, self.config, self.num_tasks = schema, config, len(schema.tasks)
        self.embedding = FeatureEmbedding(schema, config.embedding_width, std=config.embedding_std)
        self.user_width, self.item_width = side_widths(self.embedding)
        self.experts = Experts(config.experts, config.expert_hidden, dropout=config.dropout)
        num_first = config.experts * config.expert_hidden[0]
        self.first = SplitLinear(self.user_width, self.item_width, num_first)
        self.gate = SplitLinear(
            self.user_width, self.item_width, self.num_tasks * config.experts, bias=False
        )  # W_gk of all tasks
        self.towers = TaskTowers(
            self.num_tasks, self.experts.out_width, config.tower_hidden, dropout=config.dropout
        )

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Inputs by signature name -> logits [N, T]."""
        row_N = features[ROW]
        user_RSE, item_NSE = self.embedding(features)
        user_RI, item_NI = flat(user_RSE), flat(item_NSE)
        expert_NnH = self.experts(self.first(user_RI, item_NI, row_N))  # f_i(x)
        gate_NTn = self.gate(user_RI, item_NI, row_N).reshape(-1, self.num_tasks, self.config.experts)
        mixed_NTH = mixed(gate_NTn, expert_NnH)  # equation 7: g^k(x) = softmax(W_gk x)
        logits: Tensor = self.towers([mixed_NTH[:, t] for t in range(self.num_tasks)])
        return logits

    def output_biases(self) -> list[Tensor]:
        """Return the constants of the logits, T numbers in all."""
        return self.towers.output_biases()
