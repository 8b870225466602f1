"""A finished run read back, and scores of its model on rows of examples.

Legend: N rows, T tasks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rankd_contract.calibration import Calibration
from rankd_contract.schema import FeatureSchema
from rankd_contract.signature import ROW
from rankd_training.errors import RunError
from rankd_training.examples.examples import Examples
from rankd_training.examples.inputs import RowInputs
from rankd_training.measures import calibration
from rankd_training.models.registry import RankingModel
from rankd_training.runs import checkpoint
from rankd_training.runs.run_folder import METRICS, RUN

__all__ = ["Run", "score", "score_rows"]

BATCH_ROWS = 2048


@dataclass(frozen=True, slots=True)
class Run:
    """A run's folder in memory.

    Attributes:
        folder: where it lies.
        model: with its weights, in evaluation mode.
        record: `run.json`, how it was made.
        metrics: `metrics.json`, by split and task, of scores as they leave the model.
        calibration: what makes these scores probabilities where the model is served; none of it in a run that
            was not calibrated.
    """

    folder: Path
    model: RankingModel
    record: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]
    calibration: Calibration

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read a run's folder.

        Raises:
            RunError: it is no complete run; names the file.
        """
        model = checkpoint.load(folder)
        tasks = [task.name for task in model.schema.tasks]
        return cls(
            folder,
            model,
            _read_json(folder / RUN),
            _read_json(folder / METRICS),
            Calibration.of(calibration.read(folder), tasks),
        )

    @property
    def schema(self) -> FeatureSchema:
        """What the model reads and predicts."""
        return self.model.schema


def score_rows(
    model: RankingModel, examples: Examples, row_N: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Probabilities for some rows of the examples -> [N, T]; each row is its own user row."""
    # Batch by batch, so that no more than one is copied out of what may be larger than memory.
    batches = [row_N[start : start + BATCH_ROWS] for start in range(0, len(row_N), BATCH_ROWS)]
    return np.concatenate([score(model, RowInputs.of(examples, at).features, len(at)) for at in batches])


@torch.no_grad()
def score(model: RankingModel, features: Mapping[str, Tensor], num_rows: int) -> npt.NDArray[np.float32]:
    """Probabilities for inputs in which row i of every entity belongs to candidate i -> [N, T].

    Args:
        model: in evaluation mode.
        features: by signature name, `in_row` left out.
        num_rows: N.
    """
    scores = []
    for start in range(0, num_rows, BATCH_ROWS):
        batch = {name: whole[start : start + BATCH_ROWS] for name, whole in features.items()}
        batch[ROW] = torch.arange(min(BATCH_ROWS, num_rows - start))
        scores.append(torch.sigmoid(model(batch)))
    return np.asarray(torch.cat(scores).numpy(), np.float32)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(path, f"cannot be read: {error}; train again with `rankd train`") from error
