"""What can be chosen of INFNet: its two versions, their sizes, and what the printed equations leave open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rankd_training.errors import SettingError

__all__ = ["INFNetConfig"]


@dataclass(frozen=True, slots=True)
class INFNetConfig:
    """Sizes are for small data; v2's published ones are width 64, 4 blocks, 16 hubs, 4 shared task tokens.

    Attributes:
        variant: `v1` adds what sources say and gates tokens; `v2` fuses it and moves tokens (alpha, beta).
        embedding_width: E, numbers a token; also of keys and values (v1 does not state d_k).
        blocks: how often tokens meet.
        categorical_hubs: hubs of the group of fields.
        shared_task_tokens: task tokens that belong to no task: v1's hubs T~, v2's further task tokens.
        extra_sequence_hubs: learned hubs beside the one a sequence. v1 speaks of 4 hubs, its equations give
            one a sequence: the default follows the equations.
        gate_source: hubs that gate tokens. v1 prints the hubs before the block and says "from the
            heterogeneous stage": `updated` follows the words, and alone lets the last block's hubs count.
        residual: hubs and task tokens are LN(x + flow). v1 says residual, prints none: False is as printed.
        gate_bias: first bias of a gate's sigmoid: 2 keeps 0.88 of each token a block, 0 only half.
        gate_hidden: hidden layers (width E, ReLU) of the gates' MLP; not stated.
        attention_heads: heads of every attention; not stated.
        hub_hidden: hidden widths of the MLP that makes the first categorical hubs; not stated.
        position_embeddings: a learned vector a position of a sequence; None is as published: v2 only.
        hidden: widths of each task's tower.
        dropout: share of units dropped in the towers.
        embedding_std: initial standard deviation of embeddings and learned tokens, None for Xavier-uniform.
            Ours.
    """

    variant: Literal["v1", "v2"] = "v2"
    embedding_width: int = 16
    blocks: int = 2
    categorical_hubs: int = 4
    shared_task_tokens: int = 2
    extra_sequence_hubs: int = 0
    gate_source: Literal["updated", "previous"] = "updated"
    residual: bool = True
    gate_bias: float = 2.0
    gate_hidden: int = 1
    attention_heads: int = 1
    hub_hidden: tuple[int, ...] = (64,)
    position_embeddings: bool | None = None
    hidden: tuple[int, ...] = (64,)
    dropout: float = 0.1
    embedding_std: float | None = 0.05

    def check(self) -> None:
        """Raise SettingError where these settings make no model."""
        positive = ("embedding_width", "blocks", "categorical_hubs", "shared_task_tokens", "attention_heads")
        for name in positive:
            if getattr(self, name) < 1:
                raise SettingError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("extra_sequence_hubs", "gate_hidden"):
            if getattr(self, name) < 0:
                raise SettingError(f"{name}: expected at least 0, got {getattr(self, name)}")
        for name, value, known in (
            ("variant", self.variant, ("v1", "v2")),
            ("gate_source", self.gate_source, ("updated", "previous")),
        ):
            if value not in known:
                raise SettingError(f"{name} {value!r}: expected one of {', '.join(known)}")
        if self.embedding_width % self.attention_heads:
            raise SettingError(
                f"attention_heads {self.attention_heads}: expected a divisor of embedding_width "
                f"{self.embedding_width}"
            )
        if self.variant == "v2" and self.gate_source == "previous":
            raise SettingError(
                "gate_source 'previous': only v1 prints it; expected 'updated' with variant v2"
            )
