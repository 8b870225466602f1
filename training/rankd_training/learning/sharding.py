"""A run whose table lies spread over its processes: whether it can be, and how its model is made and kept."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from rankd_contract.schema import FeatureSchema
from rankd_training.errors import SettingError
from rankd_training.layers.row_share import RowShare, sharing
from rankd_training.learning.ranks import Ranks
from rankd_training.models.registry import RankingModel, build
from rankd_training.runs.spread import Spread
from rankd_training.settings import TrainSettings

__all__ = ["build_shared", "check_sharding", "num_parameters", "weights_of"]

TABLE = "embedding.table.weight"
FILE = "training/requirements-torchrec.txt"
INSTALL = f"pip install --no-deps -r {FILE}"


def check_sharding(settings: TrainSettings, ranks: Ranks) -> None:
    """Raise SettingError where tables are to be spread and cannot be."""
    if settings.embedding_sharding == "none":
        return
    if not ranks.many:
        raise SettingError(
            f"embedding_sharding={settings.embedding_sharding}: there is one process, and nothing to spread "
            "tables over; start several with `torchrun --nproc-per-node=2 -m rankd.cli train` or `--ray 2`"
        )
    if settings.embedding_optimiser == "adam":
        raise SettingError(
            f"embedding_sharding={settings.embedding_sharding}: embedding_optimiser=adam moves whole tables; "
            "deferred_adam has the same results row by row"
        )
    missing = [name for name in ("torchrec", "fbgemm_gpu") if find_spec(name) is None]
    if missing:
        raise SettingError(
            f"embedding_sharding={settings.embedding_sharding} needs {' and '.join(missing)}, which is not "
            f"installed; run, after torch is: {INSTALL}"
        )


def build_shared(settings: TrainSettings, schema: FeatureSchema, ranks: Ranks) -> RankingModel:
    """Build the run's model; where tables are spread, no process ever has the whole one.

    Initial weights are those of a model in one piece.
    """
    if settings.embedding_sharding == "none":
        return build(settings.model, schema, settings.model_config)
    from rankd_training.learning.row_exchange import TorchRecExchange  # noqa: PLC0415  # optional

    with sharing(RowShare(ranks.index, ranks.count)):
        model = build(settings.model, schema, settings.model_config)
    model.embedding.read_through(TorchRecExchange(model.embedding.num_rows))
    return model


def num_parameters(model: RankingModel) -> int:
    """Return how many numbers a model learns, over all processes."""
    table = model.embedding.table
    elsewhere: int = (model.embedding.num_rows - table.num_embeddings) * table.embedding_dim
    return elsewhere + sum(p.numel() for p in model.parameters())


def weights_of(model: RankingModel, ranks: Ranks) -> Mapping[str, Tensor | Spread]:
    """Return a model's weights by name, as checkpoints have them."""
    weights: dict[str, Any] = dict(model.state_dict())
    if model.embedding.spread:
        weights[TABLE] = Spread(
            weights[TABLE], model.embedding.held.start, model.embedding.num_rows, ranks.in_turn
        )
    return weights
