"""What a graph in fewer bits loses on validation rows, and whether that is little enough to be published.

Legend: N rows, T tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from rankd_export.errors import QualityLost, RunUnusable
from rankd_export.parity import Request, run_onnx
from rankd_training.examples.batches import Batches
from rankd_training.examples.examples import Examples
from rankd_training.measures.metrics import TaskMetrics, evaluate

__all__ = ["MAX_AUC_LOSS", "TaskLoss", "judge", "losses"]

MAX_AUC_LOSS = 0.001
SPLIT = "valid"
# As many as a request has candidates: int8's scales are those of a request.
_ROWS = 512


@dataclass(frozen=True, slots=True)
class TaskLoss:
    """One task's scores in float32 and in fewer bits, over the same rows.

    Attributes:
        rows: N.
        auc: of the float32 graph.
        auc_loss: how much lower the other's is; below zero where it happens to be higher.
        log_loss: of the float32 graph.
        log_loss_rise: how much higher the other's is.
        largest_difference: of a probability.
    """

    rows: int
    auc: float
    auc_loss: float
    log_loss: float
    log_loss_rise: float
    largest_difference: float

    def to_json(self) -> dict[str, float]:
        """Return the loss as it stands in the manifest."""
        return asdict(self)


def losses(full: onnx.ModelProto, less: onnx.ModelProto, examples: Examples) -> dict[str, TaskLoss]:
    """Score the validation rows with both graphs, each row with its own user; by task.

    Raises:
        RunUnusable: there are none, or not of both classes, so that nothing can be lost.
    """
    row_N = examples.rows[SPLIT]
    label_NT, user_N = np.asarray(examples.label_nT[row_N]), np.asarray(examples.group_n[row_N])
    requests = list(_requests(examples, row_N))
    full_NT, less_NT = (_scores(graph, requests) for graph in (full, less))
    found = {}
    for t, task in enumerate(examples.schema.tasks):
        label_N = label_NT[:, t]
        if not 0 < label_N.sum() < len(label_N):
            raise RunUnusable(
                f"task {task.name}: the {len(label_N)} {SPLIT} rows are all of one class, so nothing shows "
                "what fewer bits lose; give examples with both, or export as fp32"
            )
        before, after = (evaluate(label_N, score_NT[:, t], user_N) for score_NT in (full_NT, less_NT))
        found[task.name] = _loss(before, after, np.abs(full_NT[:, t] - less_NT[:, t]))
    return found


def judge(lost: Mapping[str, TaskLoss], max_auc_loss: float = MAX_AUC_LOSS) -> None:
    """Raise QualityLost where a task's AUC loses more than that, or scores are no numbers."""
    for name, loss in lost.items():
        if not loss.auc_loss <= max_auc_loss:  # so that NaN is refused too
            raise QualityLost(
                f"task {name}: AUC on {loss.rows} {SPLIT} rows falls from {loss.auc:.5f} by "
                f"{loss.auc_loss:.5f} (log loss rises by {loss.log_loss_rise:.5f}); allowed is "
                f"{max_auc_loss:g}. Nothing was published; take another --precision, or allow more with "
                "--max-auc-loss"
            )


def _loss(before: TaskMetrics, after: TaskMetrics, difference_N: NDArray[Any]) -> TaskLoss:
    assert before.auc is not None
    assert after.auc is not None
    return TaskLoss(
        rows=before.rows,
        auc=before.auc,
        auc_loss=before.auc - after.auc,
        log_loss=before.log_loss,
        log_loss_rise=after.log_loss - before.log_loss,
        largest_difference=float(difference_N.max()),
    )


def _requests(examples: Examples, row_N: NDArray[np.int64]) -> Iterator[Request]:
    batches = Batches(examples)
    for start in range(0, len(row_N), _ROWS):
        batch = batches.read(torch.from_numpy(row_N[start : start + _ROWS]))
        yield {name: tensor.numpy() for name, tensor in batch.features.items()}


def _scores(graph: onnx.ModelProto, requests: list[Request]) -> NDArray[np.float32]:
    scores: NDArray[np.float32] = np.concatenate([scores for _, scores in run_onnx(graph, requests)])
    if not np.isfinite(scores).all():
        raise QualityLost("some scores are no finite numbers; take another --precision")
    return scores
