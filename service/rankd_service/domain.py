"""The values that travel through a ranking request. They know no HTTP, no Redis, no ONNX.

Candidates are kept as columns (ids, and request-time fields by position), not as one object each:
at 500 candidates the objects alone would cost more than the rest of the parsing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from rankd_contract.schema import Entity

__all__ = [
    "DEGRADATIONS",
    "NOBODY",
    "Candidates",
    "Degradation",
    "DegradeReason",
    "FieldValue",
    "Fields",
    "ModelCard",
    "Partition",
    "RankRequest",
    "Rung",
    "Slate",
    "Stage",
    "User",
]

FieldValue = str | int | float | bool | list[str | int | float | bool] | None
Fields = Mapping[str, FieldValue]


class Stage(StrEnum):
    """Stages of a request, in their order; names of the timing block and a metric label."""

    ADMISSION = "admission"
    PARSE = "parse"
    FEATURE_FETCH = "feature_fetch"
    ASSEMBLE = "assemble"
    INFER = "infer"
    POSTPROCESS = "postprocess"
    SERIALIZE = "serialize"


class Partition(StrEnum):
    """Whose request it is: somebody waits for a live one, nobody for a batch one."""

    LIVE = "live"
    BATCH = "batch"


class Rung(StrEnum):
    """What was answered instead of the full thing, mildest first."""

    NEAR_CACHE_ROW = "near_cache_row"
    DEFAULT_ROW = "default_row"
    CHEAPER_MODEL = "cheaper_model"
    FEWER_CANDIDATES = "fewer_candidates"
    RETRIEVAL_ORDER = "retrieval_order"
    LAST_PLACE = "last_place"


class DegradeReason(StrEnum):
    """Why a stage gave less than everything."""

    STORE_DOWN = "store_down"
    STORE_TIMEOUT = "store_timeout"
    STORE_BUSY = "store_busy"
    STORE_ERROR = "store_error"
    NO_TIME = "no_time"
    FEATURES_MISSING = "features_missing"
    ROWS_UNREADABLE = "rows_unreadable"
    INFERENCE_LATE = "inference_late"
    SCORE_NOT_FINITE = "score_not_finite"


_STORE = (Stage.FEATURE_FETCH, (Rung.NEAR_CACHE_ROW, Rung.DEFAULT_ROW))

# Where each reason arises, and what may be answered then.
DEGRADATIONS: Mapping[DegradeReason, tuple[Stage, tuple[Rung, ...]]] = {
    DegradeReason.STORE_DOWN: _STORE,
    DegradeReason.STORE_TIMEOUT: _STORE,
    DegradeReason.STORE_BUSY: _STORE,
    DegradeReason.STORE_ERROR: _STORE,
    DegradeReason.NO_TIME: _STORE,
    DegradeReason.FEATURES_MISSING: (Stage.FEATURE_FETCH, (Rung.DEFAULT_ROW,)),
    DegradeReason.ROWS_UNREADABLE: (Stage.FEATURE_FETCH, (Rung.DEFAULT_ROW,)),
    DegradeReason.INFERENCE_LATE: (
        Stage.INFER,
        (Rung.CHEAPER_MODEL, Rung.FEWER_CANDIDATES, Rung.RETRIEVAL_ORDER),
    ),
    DegradeReason.SCORE_NOT_FINITE: (Stage.INFER, (Rung.LAST_PLACE,)),
}


@dataclass(frozen=True, slots=True)
class Degradation:
    """One thing that was not as it should be, and what was answered instead; `affected` counts candidates."""

    reason: DegradeReason
    rung: Rung
    affected: int

    @property
    def stage(self) -> Stage:
        """Where it arose."""
        return DEGRADATIONS[self.reason][0]


@dataclass(frozen=True, slots=True)
class User:
    """For whom candidates are ranked, with what the caller knows of the user right now.

    The empty id is nobody's: a model of a schema without users needs none.
    """

    id: str
    fields: Fields = field(default_factory=dict)


NOBODY = User("")


@dataclass(frozen=True, slots=True)
class Candidates:
    """What is ranked: unique ids in the caller's order, and request-time fields by position."""

    ids: Sequence[str]
    fields: Mapping[int, Fields] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class RankRequest:
    """One ranking request, already checked for form."""

    id: str
    user: User
    candidates: Candidates
    context: Fields = field(default_factory=dict)
    top_k: int | None = None
    sort: bool = True


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What may be said in public of a model that is served.

    `nodes` counts the nodes of its graph by provider; `fallback` says why it runs on the CPU though CUDA was
    preferred, and is empty where it does not.
    """

    name: str
    version: int
    architecture: str
    digest: str
    created_at: str
    provider: str
    tasks: tuple[str, ...]
    fusion: Mapping[str, float]
    user_fields: tuple[str, ...]
    item_fields: tuple[str, ...]
    context_fields: tuple[str, ...]
    nodes: Mapping[str, int] = field(default_factory=dict)
    fallback: str = ""


@dataclass(frozen=True, slots=True)
class Slate:
    """The ordered answer, as columns.

    `order` [K] holds positions in the request's candidates, `ranks` [K] their places counted from 1,
    `scores` [K] the ranking scores and `task_scores_KT` one column a task. `statuses` has one
    FeatureStatus a row for users and for items (in the request's order). Of the request's candidates the
    first `scored` were scored; the others have the model's prior score and follow in their own order. `model`
    is the one that scored them, which may be a cheaper one than was asked for.
    """

    model: ModelCard
    order: NDArray[np.intp]
    ranks: NDArray[np.intp]
    scores: NDArray[np.float32]
    task_scores_KT: NDArray[np.float32]
    statuses: Mapping[Entity, NDArray[np.uint8]]
    degraded: tuple[Degradation, ...]
    scored: int
