"""The answers' wire forms, for the OpenAPI document; `answer.py` writes the slate itself."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from rankd_contract.packing import FeatureStatus
from rankd_service.domain import DegradeReason, Rung, Stage

__all__ = ["ErrorAnswer", "ModelAnswer", "ModelsAnswer", "RankAnswer"]


class DegradationOut(BaseModel):
    """One thing that was not as it should be."""

    stage: Stage
    rung: Rung
    reason: DegradeReason
    affected: Annotated[int, Field(ge=0, description="Candidates it touches.")]


class RankedItem(BaseModel):
    """One candidate of the answer."""

    id: str
    rank: Annotated[int, Field(ge=1)]
    score: Annotated[
        float | None, Field(description="Weighted mean of `scores`; null where it was no number.")
    ]
    scores: Annotated[dict[str, float | None], Field(description="One probability a task.")]
    scored: Annotated[
        bool | None,
        Field(description="False where there was no time to score it: its scores are the model's average."),
    ] = None
    status: Annotated[
        str | None, Field(description="What became of its stored row, where that is not PRESENT.")
    ] = None


class FeatureStatusOut(BaseModel):
    """How many rows were read with which outcome."""

    user: dict[str, int]
    item: dict[str, int]


class RankAnswer(BaseModel):
    """The slate. `timing` is in milliseconds and ends before serialisation; Server-Timing has that too."""

    id: str
    model: str
    version: int
    took_ms: float
    items: list[RankedItem]
    degraded: list[DegradationOut]
    feature_status: Annotated[
        FeatureStatusOut, Field(description=f"Keys: {', '.join(s.name for s in FeatureStatus)}.")
    ]
    timing: dict[Stage, float] | None = None


class ErrorOut(BaseModel):
    """What went wrong. Never holds a value of the request."""

    code: str
    message: str
    field: Annotated[str | None, Field(description="Path of the offending field, such as `items.3.id`.")] = (
        None
    )
    request_id: str
    retryable: bool


class ErrorAnswer(BaseModel):
    """The body of every answer that is not 2xx."""

    error: ErrorOut


class ModelAnswer(BaseModel):
    """A model that is served."""

    model: str
    version: int
    architecture: str
    digest: str
    created_at: str
    provider: str
    tasks: list[str]
    fusion: dict[str, float]
    user_fields: list[str]
    item_fields: list[str]
    context_fields: list[str]


class ModelsAnswer(BaseModel):
    """All models that are served."""

    models: list[ModelAnswer]
