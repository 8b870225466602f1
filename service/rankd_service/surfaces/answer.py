"""Writes the answer to a ranking request: the one place where a slate becomes bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from rankd_contract.packing import FeatureStatus
from rankd_contract.schema import Entity
from rankd_service.domain import RankRequest, Slate, Stage

__all__ = ["encode_slate"]


def encode_slate(
    request: RankRequest, slate: Slate, took_s: float, timing: Mapping[Stage, float] | None
) -> bytes:
    """Write the answer as JSON; `timing` is left out where it is None."""
    ids, tasks = request.candidates.ids, slate.model.tasks
    statuses = slate.statuses[Entity.ITEM][slate.order]
    items = [
        {"id": ids[at], "rank": place, "score": score, "scores": dict(zip(tasks, task_scores, strict=True))}
        for at, place, score, task_scores in zip(
            slate.order.tolist(),
            slate.ranks.tolist(),
            slate.scores.tolist(),
            slate.task_scores_KT.tolist(),
            strict=True,
        )
    ]
    for row in np.flatnonzero(statuses != FeatureStatus.PRESENT):
        items[row]["status"] = FeatureStatus(statuses[row]).name
    answer: dict[str, Any] = {
        "id": request.id,
        "model": slate.model.name,
        "version": slate.model.version,
        "took_ms": round(took_s * 1000, 3),
        "items": items,
        "degraded": [
            {"stage": d.stage, "rung": d.rung, "reason": d.reason, "affected": d.affected}
            for d in slate.degraded
        ],
        "feature_status": {
            entity.value: _counts(slate.statuses[entity]) for entity in (Entity.USER, Entity.ITEM)
        },
    }
    if timing is not None:
        answer["timing"] = {stage.value: round(spent_s * 1000, 3) for stage, spent_s in timing.items()}
    return orjson.dumps(answer)


def _counts(statuses: np.ndarray[Any, np.dtype[np.uint8]]) -> dict[str, int]:
    counts = np.bincount(statuses, minlength=len(FeatureStatus)).tolist()
    return {status.name: counts[status] for status in FeatureStatus if counts[status]}
