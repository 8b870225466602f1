"""INFNet (arXiv 2508.11565): fields, behaviour sequences and tasks exchange what they know through few hubs.

Written from the equations of v1 ("A Task-aware Information Flow Network") and from a description of v2
("Aggregate and Broadcast"). Cost is hubs times tokens. What depends on the user alone is computed once per
user row: in the first block that is the sequences' keys and values, and those of the user's own fields.

Legend: R user rows, N candidates, L positions of all sequences, E width, T tasks. Groups of tokens: C fields,
S sequences, T tasks; a "hub" of a group is what v1 calls its proxy (C~, S~, T~).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import ROW
from rankd_training.errors import SettingError
from rankd_training.layers.absorbed import absorb
from rankd_training.layers.attention import Aggregation
from rankd_training.layers.embedding import FeatureEmbedding, SideTokens
from rankd_training.layers.heads import Tower, last_bias, linear
from rankd_training.layers.hubs import CategoricalHubs, SequenceHubs, Sides
from rankd_training.layers.tokens import Rows, Tokens, learned
from rankd_training.models.infnet_block import Block, State
from rankd_training.models.infnet_config import INFNetConfig

__all__ = ["INFNet", "INFNetConfig"]


class INFNet(nn.Module):
    """Tokens, blocks, and a tower a task that reads the task's own token.

    What the papers leave open, besides the settings, and what is done here:
        Both: every attention has weights of its own, no biases and no output projection. The last block
        computes only what the heads read, so its fields and sequences are not gated. A plain number is a
        token like any field; a multi-value field is one token, the mean of its values.
        v1: one projection without bias, shared by all sequences, makes the sequence hubs.
        v2: each group of hubs queries all of C, S and T. The description names "own group, sequences,
        tasks", by which neither sequence nor task hubs would ever see a field. Task tokens, a task's own and
        shared, are their group's hubs as well and all of them query. Tokens of a sequence have positions but
        no time gaps, which a schema does not hold. The gates' bias is used for alpha; beta starts at zero.
    """

    def __init__(self, schema: FeatureSchema, config: INFNetConfig) -> None:
        super().__init__()
        config.check()
        self.schema, self.config = schema, config
        width, std, num_tasks = config.embedding_width, config.embedding_std, len(schema.tasks)
        self.embedding = FeatureEmbedding(schema, width, std=std)
        user, item = self.embedding.user_side, self.embedding.item_side
        num_fields = Sides(
            user.num_slots - len(user.sequence_lengths), item.num_slots - len(item.sequence_lengths)
        )
        if num_fields == Sides(0, 0):
            raise SettingError(f"schema '{schema.name}' has sequences only; INFNet needs another field")
        lengths = [side.sequence_lengths for side in (user, item) if side.sequence_lengths]
        num_hubs = sum(map(len, lengths)) + config.extra_sequence_hubs if lengths else 0

        self.task_tokens_TE = learned(num_tasks, width, std)
        self.shared_tokens_HE = learned(config.shared_task_tokens, width, std)
        positions = (
            config.variant == "v2" if config.position_embeddings is None else config.position_embeddings
        )
        self.positions = nn.ParameterList(learned(sum(n), width, std) for n in lengths * positions)
        reads_hubs = config.blocks > 1  # the last block reads no hubs of fields and sequences
        self.field_hubs = (
            CategoricalHubs(width, num_fields, config.categorical_hubs, hidden=config.hub_hidden)
            if reads_hubs
            else None
        )
        self.sequence_hubs = (
            SequenceHubs(
                width,
                lengths,
                prototypes=config.variant == "v2",
                num_extra=config.extra_sequence_hubs,
                std=std,
            )
            if reads_hubs and lengths
            else None
        )
        self.blocks = nn.ModuleList(
            Block(config, num_tasks, num_hubs, num_left=n) for n in reversed(range(config.blocks))
        )
        self.heads = nn.ModuleList(_head(config) for _ in schema.tasks)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Inputs by signature name -> logits [N, T]."""
        row_N = features[ROW]
        state = self._tokens(*self.embedding.tokens(features), row_N)
        for block in self.blocks:
            state = block(state, row_N)
        task_NTE = state.tasks.x
        return torch.cat([head(task_NTE[:, t]) for t, head in enumerate(self.heads)], dim=1)

    def output_biases(self) -> list[Tensor]:
        """Return the constants of the logits, T numbers in all."""
        return [last_bias(head) for head in self.heads]

    def folded(self) -> INFNet:
        """Attentions multiplied out; what the last block reads is gated inside its attentions."""
        served = deepcopy(self).eval()
        for flow in [module for module in served.modules() if isinstance(module, Aggregation)]:
            absorb(flow)
        for block in served.blocks[-2:-1]:
            assert isinstance(block, Block)
            block.keep_gates()
        return served

    def _tokens(self, user: SideTokens, item: SideTokens, row_N: Tensor) -> State:
        """C, S and T as they enter the first block, and the hubs C~(0), S~(0), T~(0)."""
        sides = ((user, Rows.USER), (item, Rows.CANDIDATE))
        fields = tuple(Tokens(side.slots_RSE, rows) for side, rows in sides if side.slots_RSE is not None)
        sequences = tuple(
            Tokens(side.sequence_RLE, rows, side.present_RL)
            for side, rows in sides
            if side.sequence_RLE is not None and side.present_RL is not None
        )
        if len(self.positions):
            sequences = tuple(map(_positioned, sequences, self.positions))
        tasks, shared = self.task_tokens_TE.unsqueeze(0), self.shared_tokens_HE.unsqueeze(0)
        if self.config.variant == "v2":
            tasks = torch.cat([tasks, shared], dim=1)
        return State(
            fields,
            sequences,
            Tokens(tasks, Rows.SHARED),
            None if self.field_hubs is None else self.field_hubs(fields, row_N),
            None if self.sequence_hubs is None else self.sequence_hubs(sequences, row_N),
            Tokens(shared, Rows.SHARED) if self.config.variant == "v1" else None,
        )


def _positioned(sequence: Tokens, position_LE: Tensor) -> Tokens:
    """Add a vector a position, but none at padding."""
    assert sequence.present is not None
    x = sequence.x + position_LE * sequence.present.unsqueeze(2)
    return Tokens(x, sequence.rows, sequence.present)


def _head(config: INFNetConfig) -> nn.Module:
    tower = Tower(config.embedding_width, config.hidden, dropout=config.dropout)
    return nn.Sequential(tower, linear(tower.out_width, 1))
