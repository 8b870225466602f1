"""What a training run is told. Values are checked where they are used; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["TrainSettings"]


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """One run.

    Attributes:
        examples: labelled rows: a Parquet or libsvm file, or a folder of them.
        schema: the schema file.
        output: the run's folder, which must not exist yet or be empty.
        model: a name of `models.registry.names()`.
        model_config: settings of the model that differ from its defaults.
        epochs: passes over the training rows at most.
        patience: epochs without a better validation AUC after which training stops.
        batch_size: rows a step.
        learning_rate: of Adam.
        weight_decay: of every weight but embeddings and biases, decoupled (AdamW).
        embedding_decay: the same for embeddings, whose rare rows overfit first.
        unknown_rates: by field, the share of ids that is hidden in training, so that values which are new
            when the model is used read a learned row (`unknowns.py`).
        seed: of initial weights, order of rows, and dropout.
        group_column: whose row it is, for the AUC within users; by default the user view's key.
        split: shares such as 80/10/10 to deal out the rows by; by default their column `split` says, or the
            files' names.
        split_time: column by which the latest rows become the test part; by default a hash of the row's
            number decides.
        split_seed: of that hash.
        in_memory_mb: encoded examples that need more are mapped from files in the user's cache.
        threads: of torch. More than one helps large models on an idle machine; on a busy one they wait for
            each other, and results depend on their number.
    """

    examples: Path
    schema: Path
    output: Path
    model: str = "mlcc"
    model_config: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 10
    patience: int = 2
    batch_size: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    embedding_decay: float = 0.0
    unknown_rates: Mapping[str, float] = field(default_factory=dict)
    seed: int = 42
    group_column: str | None = None
    split: str | None = None
    split_time: str | None = None
    split_seed: int = 0
    in_memory_mb: int = 2048
    threads: int = 1
