"""One block of INFNet: hubs take in what the groups hold (aggregate), then change their group (broadcast).

Legend as in `infnet.py`. v1's equations: X~' = sum of CA(X~, Y, Y) over the other groups Y, T^ the same from
T, X' = PGU(X, X~'). v2's: X~' = fused CA(X~, Y, Y) over all groups Y, X' = LN(X + X sigmoid(alpha) + beta).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from rankd_training.layers.attention import Aggregation
from rankd_training.layers.broadcast import BroadcastGate, ProxyGate
from rankd_training.layers.gated import KeptGate
from rankd_training.layers.tokens import Group, Tokens
from rankd_training.models.infnet_config import INFNetConfig

__all__ = ["Block", "State"]


@dataclass(frozen=True, slots=True)
class State:
    """Tokens and hubs between blocks.

    Attributes:
        fields: C.
        sequences: S; no part where the schema has none.
        tasks: T; in v2 with the shared tokens after the tasks' own.
        field_hubs: C~; None where no block to come reads them, as the other hubs.
        sequence_hubs: S~.
        task_hubs: T~ of v1; v2's tasks are their own hubs.
    """

    fields: Group
    sequences: Group
    tasks: Tokens
    field_hubs: Tokens | None
    sequence_hubs: Tokens | None
    task_hubs: Tokens | None


class Block(nn.Module):
    """One block, with `num_left` to come; the last changes tasks only, since the heads read nothing else."""

    def __init__(
        self, config: INFNetConfig, num_tasks: int, num_sequence_hubs: int, *, num_left: int
    ) -> None:
        super().__init__()
        # Updated hubs that gate neither here nor in a later block would be weights that never learn.
        late = config.gate_source == "previous"
        self.reads_own = config.variant == "v2"
        others = 2 if num_sequence_hubs else 1  # groups beside the fields', or beside the tasks'
        own = int(self.reads_own)
        self.fields = self.sequences = None
        if num_left:
            keeps = late and num_left == 1
            self.fields = _HubGroup(config, config.categorical_hubs, others + own, keeps_hubs=keeps)
            if num_sequence_hubs:
                self.sequences = _HubGroup(config, num_sequence_hubs, 2 + own, keeps_hubs=keeps)
        self.task_flow = None if self.reads_own else _aggregation(config, others)
        self.tasks = _HubGroup(
            config,
            config.shared_task_tokens + (num_tasks if self.reads_own else 0),
            others + own,
            keeps_hubs=late and num_left == 0,
        )

    def keep_gates(self) -> None:
        """Leave fields and sequences as they are, their gates beside them: for the block before the last."""
        for group in (self.fields, self.sequences):
            if group is not None:
                group.gate = KeptGate(group.gate)  # type: ignore[assignment]  # all that attentions need

    def forward(self, state: State, row_N: Tensor) -> State:
        """-> the state after this block."""
        fields, sequences, tasks = state.fields, state.sequences, (state.tasks,)

        def sources(own: Group) -> list[Group]:
            return [
                group
                for group in (fields, sequences, tasks)
                if group and (self.reads_own or group is not own)
            ]

        new_fields, field_hubs = fields, None
        if self.fields is not None and state.field_hubs is not None:
            new_fields, field_hubs = self.fields(fields, state.field_hubs, sources(fields), row_N)
        new_sequences, sequence_hubs = sequences, None
        if self.sequences is not None and state.sequence_hubs is not None:
            new_sequences, sequence_hubs = self.sequences(
                sequences, state.sequence_hubs, sources(sequences), row_N
            )
        if self.task_flow is None or state.task_hubs is None:
            (new_tasks,), _ = self.tasks(None, state.tasks, sources(tasks), row_N)
            return State(new_fields, new_sequences, new_tasks, field_hubs, sequence_hubs, None)
        flowed = self.task_flow(state.tasks, sources(tasks), row_N)  # T^
        (new_tasks,), task_hubs = self.tasks((flowed,), state.task_hubs, sources(tasks), row_N)
        return State(new_fields, new_sequences, new_tasks, field_hubs, sequence_hubs, task_hubs)


class _HubGroup(nn.Module):
    """A group's hubs query the sources, then gate the group's tokens; without tokens, themselves."""

    def __init__(
        self, config: INFNetConfig, num_hubs: int, num_sources: int, *, keeps_hubs: bool = False
    ) -> None:
        super().__init__()
        self.gate_updated = config.gate_source == "updated"
        self.aggregate = None if keeps_hubs else _aggregation(config, num_sources)
        gate = BroadcastGate if config.variant == "v2" else ProxyGate
        self.gate: ProxyGate | BroadcastGate = gate(
            config.embedding_width, num_hubs, num_hidden=config.gate_hidden, bias=config.gate_bias
        )

    def forward(
        self, tokens: Group | None, hubs: Tokens, sources: Sequence[Group], row_N: Tensor
    ) -> tuple[Group, Tokens]:
        """-> the gated tokens and the updated hubs."""
        updated = hubs if self.aggregate is None else self.aggregate(hubs, sources, row_N)
        by = updated if self.gate_updated else hubs
        return self.gate((updated,) if tokens is None else tokens, by, row_N), updated


def _aggregation(config: INFNetConfig, num_sources: int) -> Aggregation:
    return Aggregation(
        config.embedding_width,
        num_sources,
        num_heads=config.attention_heads,
        fused=config.variant == "v2",
        residual=config.residual,
    )
