"""What a training run is told. Values are checked where they are used; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["TrainSettings"]


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """One run. What is left to the number of rows (0, auto or None) is filled in by `recipes/sized.py`.

    Attributes:
        examples: labelled rows: a Parquet or libsvm file, or a folder of them.
        schema: the schema file.
        output: the run's folder, which must not exist yet or be empty.
        model: a name of `models.registry.names()`.
        model_config: settings of the model that differ from its defaults.
        epochs: passes over the training rows at most; 0 is 10, or as many as make 3,000 steps.
        stop_on: what makes an epoch better than another on validation rows, mean over tasks: `auc`,
            `user_auc` (AUC within users) or `log_loss`. `auto` is `auc`, or `log_loss` where a label of the
            validation rows is rarer than 200.
        patience: epochs without a better one after which training stops; 0 is 2, or as many as make 300
            steps, or all where a `schedule` lets rates fall.
        batch_size: rows a step; 0 is 1,024, halved until an epoch has 64 steps, down to 32.
        learning_rate: of Adam.
        weight_decay: of every weight but embeddings and biases, decoupled (AdamW).
        embedding_decay: the same for embeddings, whose rare rows overfit first; None shrinks them by a tenth
            an epoch, at most by a fiftieth a step.
        embedding_optimiser: of the tables of ids. `adam` moves every row at every step; `deferred_adam`
            gives the same results at the cost of the rows that a batch reads; `lazy_adam` lets a row's
            moments stand still while nobody reads it, and `rowwise_adagrad` keeps one number of state a
            row: other results, see `row_rules.py`. `auto` is `adam` below 200,000 rows, else
            `deferred_adam`.
        embedding_learning_rate: of embeddings; None is `learning_rate`. Adagrad wants a larger one, say 0.02.
        embedding_sharding: `row_wise` spreads the tables of ids over the processes of a run, for tables that
            no machine can hold together with their optimiser; needs training/requirements-torchrec.txt.
        schedule: how both learning rates fall over the steps of all `epochs`: `constant`, or `linear` or
            `cosine` down to zero. Last epochs then differ little, and so do seeds; `patience` below `epochs`
            may stop a run while its rates are still high.
        gradient_clamp: bound of every element of a gradient, either way, as ARM-Net's runs had 1; None leaves
            them.
        average_decay: above 0, a moving mean of the weights is what epochs are judged by and what is kept;
            this share of it stays at each step: 0.998 is a mean over some 500 steps, and at first over the
            latest ninth of the steps so far. Tables that go row by row have none (`embedding_optimiser`).
        unknown_rates: by field, the share of ids that is hidden in training, so that values which are new
            when the model is used read a learned row (`unknowns.py`). None hides a fifth where a field has
            32 ids or more with fewer than 50 training rows each; {} hides none.
        ranking_loss: added to the loss of every task: `pairwise` (a click above each non-click) or `listwise`
            (softmax over the rows), within the rows of one group in a batch.
        ranking_weight: how much of it.
        funnel: names of tasks that follow each other (click, purchase), whose label implies the one before:
            the weights of their heads are drawn together (PRESTO), which helps the rare ones.
        funnel_penalty: how much; 0 leaves the heads alone.
        denoise_from: first epoch in which a user's clicks that the model finds unlikely count less (PLD);
            None trusts every click.
        denoise_temperature: weights are a softmax of -loss / temperature over a user's clicks.
        start_at_base_rate: the model's first answer is the training rows' share of positives; False, and
            it is one half, as the papers' code has it.
        calibration: fitted on validation rows after training, per task: `platt` or `isotonic`; kept beside
            the weights and applied where the model is served.
        precision: `bfloat16` computes matrix products in 16 bits; weights and optimiser stay in 32.
        compile: lets torch compile the model; pays after minutes of training, not before.
        checkpoint_steps: steps after which a run can go on if it is killed; 0 is at the end of an epoch only.
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
    epochs: int = 0
    stop_on: Literal["auto", "auc", "user_auc", "log_loss"] = "auto"
    patience: int = 0
    batch_size: int = 0
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    embedding_decay: float | None = None
    embedding_optimiser: Literal["auto", "adam", "deferred_adam", "lazy_adam", "rowwise_adagrad"] = "auto"
    embedding_learning_rate: float | None = None
    embedding_sharding: Literal["none", "row_wise"] = "none"
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    gradient_clamp: float | None = None
    average_decay: float = 0.0
    unknown_rates: Mapping[str, float] | None = None
    ranking_loss: Literal["none", "pairwise", "listwise"] = "none"
    ranking_weight: float = 0.1
    funnel: tuple[str, ...] = ()
    funnel_penalty: float = 0.01
    denoise_from: int | None = None
    denoise_temperature: float = 0.1
    start_at_base_rate: bool = True
    calibration: Literal["none", "platt", "isotonic"] = "none"
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    checkpoint_steps: int = 0
    seed: int = 42
    group_column: str | None = None
    split: str | None = None
    split_time: str | None = None
    split_seed: int = 0
    in_memory_mb: int = 2048
    threads: int = 1
