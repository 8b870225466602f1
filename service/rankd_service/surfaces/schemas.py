"""The wire form of a ranking request and its answer: what is accepted, and what is promised.

Requests are parsed strictly, straight from bytes: no unknown keys, no numbers in strings, no NaN. Of a key
given twice the last one counts. The answer's models exist for the OpenAPI document; the answer itself is
written by `answer.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Required

from pydantic import BaseModel, ConfigDict, Discriminator, FailFast, Field, Tag, TypeAdapter, ValidationError
from pydantic import GetCoreSchemaHandler as Handler
from pydantic import GetJsonSchemaHandler as JsonHandler
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypedDict

from rankd_contract.packing import FeatureStatus
from rankd_service.domain import Candidates, DegradeReason, Fields, FieldValue, RankRequest, Rung, Stage, User
from rankd_service.errors import InvalidRequest, MalformedRequest, RejectReason, nearest, shown_key
from rankd_service.settings import MOST_CANDIDATES, LimitSettings
from rankd_service.surfaces.limits import check_ids

__all__ = [
    "ErrorAnswer",
    "ModelAnswer",
    "ModelsAnswer",
    "ParsedRequest",
    "RankAnswer",
    "RankBody",
    "parse_request",
]

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class _IdSchema:
    """A string or an integer; a union with one error of its own, not one for each member."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Handler) -> CoreSchema:
        return core_schema.union_schema(
            [core_schema.str_schema(strict=True), core_schema.int_schema(strict=True)],
            mode="left_to_right",  # half the time of the default mode, which tries every member
            custom_error_type="id_type",
            custom_error_message="expected a string or an integer",
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: JsonHandler) -> dict[str, Any]:
        text = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[^\\u0000]+$"}
        return {
            "anyOf": [text, {"type": "integer"}],
            "description": "At most 128 bytes of UTF-8; answered as a string.",
        }


class _ValueSchema:
    """A request-time value: its field's schema decides which of these types it must have."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Handler) -> CoreSchema:
        one = [
            core_schema.str_schema(strict=True),
            core_schema.bool_schema(strict=True),
            core_schema.int_schema(strict=True, ge=-(2**63), lt=2**63),
            core_schema.float_schema(
                strict=True, allow_inf_nan=True
            ),  # told apart below, with its own reason
        ]
        several = core_schema.list_schema(
            core_schema.union_schema(list(one), mode="left_to_right"), fail_fast=True
        )
        return core_schema.union_schema(
            [*one, core_schema.none_schema(), several],
            mode="left_to_right",
            custom_error_type="value_type",
            custom_error_message="expected a string, a number, a boolean, null, or a list of these",
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: JsonHandler) -> dict[str, Any]:
        one = [{"type": t} for t in ("string", "boolean", "number")]
        return {"anyOf": [*one, {"type": "null"}, {"type": "array", "items": {"anyOf": one}}]}


Id = Annotated[str | int, _IdSchema]
Value = Annotated[Any, _ValueSchema]


class UserBody(TypedDict, total=False):
    """A user, with what is known right now and overrides what is stored."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    id: Required[Id]
    fields: dict[str, Value]


class ItemBody(TypedDict, total=False):
    """A candidate, with what is known right now and overrides what is stored."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    id: Required[Id]
    fields: dict[str, Value]


def _tag(value: Any) -> str:
    return "|object" if isinstance(value, dict) else "|id"


class RankBody(TypedDict, total=False):
    """A ranking request. Exactly one of `items` and `item_ids` is given; ids are unique."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    id: Annotated[str, Field(max_length=128, description="Comes back in the answer.")]
    user: Required[
        Annotated[Annotated[Id, Tag("|id")] | Annotated[UserBody, Tag("|object")], Discriminator(_tag)]
    ]
    items: Annotated[list[ItemBody], FailFast(), Field(max_length=MOST_CANDIDATES)]
    item_ids: Annotated[list[Id], FailFast(), Field(max_length=MOST_CANDIDATES)]
    context: Annotated[
        dict[str, Value],
        Field(description="Context fields by name; `timestamp` is in seconds since 1970, now by default."),
    ]
    deadline_ms: Annotated[
        float, Field(gt=0, description="Time the answer is worth waiting for; cut to our maximum.")
    ]
    top_k: Annotated[int, Field(ge=1, description="Answer only the best.")]
    timing: Annotated[bool, Field(description="Answer with the time of each stage.")]
    sort: Annotated[bool, Field(description="False keeps the order of the request.")]


_READER: TypeAdapter[RankBody] = TypeAdapter(RankBody)


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A request, and what its caller wants to be told how soon."""

    request: RankRequest
    deadline_ms: float | None
    timing: bool


def parse_request(body: bytes, request_id: str, limits: LimitSettings) -> ParsedRequest:
    """Read a request. Raises MalformedRequest where it is no JSON, InvalidRequest with the field's path."""
    try:
        tree = _READER.validate_json(body)
    except ValidationError as error:
        raise _objection(error.errors(include_url=False, include_input=False)[0], limits) from None
    place = "item_ids" if "item_ids" in tree else "items"
    entries: Sequence[object] = tree.get("item_ids", ()) if place == "item_ids" else tree.get("items", ())
    if ("items" in tree) == ("item_ids" in tree):
        raise InvalidRequest(RejectReason.SCHEMA, "expected exactly one of `items` and `item_ids`", "items")
    if not entries:
        raise InvalidRequest(RejectReason.NO_CANDIDATES, "expected at least one candidate", place)
    if len(entries) > limits.max_candidates:
        raise _too_many(place, limits)
    user = _user(tree["user"], limits)
    if "items" in tree:
        candidates = _candidates(tree["items"], limits)
    else:
        candidates = Candidates(_ids(tree["item_ids"], limits, "item_ids.{row}"))
    context: Fields = tree.get("context", {})
    _check_fields(context, "context")
    asked_id = tree.get("id", request_id)
    if "\0" in asked_id:
        raise InvalidRequest(RejectReason.SCHEMA, "expected a string without NUL", "id")
    request = RankRequest(asked_id, user, candidates, context, tree.get("top_k"), tree.get("sort", True))
    return ParsedRequest(request, tree.get("deadline_ms"), tree.get("timing", False))


def _user(given: str | int | UserBody, limits: LimitSettings) -> User:
    if isinstance(given, dict):
        fields: Fields = given.get("fields", {})
        _check_fields(fields, "user.fields")
        return User(_ids([given["id"]], limits, "user.id")[0], fields)
    return User(_ids([given], limits, "user")[0])


def _candidates(items: Sequence[ItemBody], limits: LimitSettings) -> Candidates:
    ids = _ids([item["id"] for item in items], limits, "items.{row}.id")
    fields: dict[int, Mapping[str, FieldValue]] = {
        row: f for row, item in enumerate(items) if (f := item.get("fields"))
    }
    for row, one in fields.items():
        _check_fields(one, f"items.{row}.fields")
    return Candidates(ids, fields)


def _ids(given: Sequence[str | int], limits: LimitSettings, place: str) -> list[str]:
    ids = list(map(str, given))
    check_ids(ids, limits.max_id_bytes, place)
    if len(set(ids)) != len(ids):
        first = {one: row for row, one in reversed(list(enumerate(ids)))}
        row = next(row for row, one in enumerate(ids) if first[one] != row)
        message = 'this id was already given (1 and "1" are the same id); send each candidate once'
        raise InvalidRequest(RejectReason.DUPLICATE, message, place.format(row=row))
    return ids


def _check_fields(fields: Fields, place: str) -> None:
    for name, value in fields.items():
        for one in value if isinstance(value, list) else (value,):
            if isinstance(one, float) and not math.isfinite(one):
                raise InvalidRequest(
                    RejectReason.NOT_FINITE, "expected a finite number", f"{place}.{shown_key(name)}"
                )


def _objection(error: Any, limits: LimitSettings) -> MalformedRequest | InvalidRequest:
    kind, path = error["type"], [p for p in error["loc"] if not str(p).startswith("|")]
    place = ".".join(str(p) if isinstance(p, int) else shown_key(p) for p in path) or None
    if kind == "json_invalid":
        at = error["msg"].rpartition(" at ")[2]
        return MalformedRequest(RejectReason.MALFORMED, f"the body is not valid JSON, see {at}")
    if kind == "too_long":
        return _too_many(str(place), limits)
    if kind == "finite_number":
        return InvalidRequest(RejectReason.NOT_FINITE, "expected a finite number", place)
    if kind == "extra_forbidden":
        known = list((RankBody if len(path) == 1 else ItemBody).__annotations__)
        return InvalidRequest(RejectReason.SCHEMA, f"unknown key; {nearest(str(path[-1]), known)}", place)
    if kind == "missing":
        return InvalidRequest(RejectReason.SCHEMA, "this key is required", place)
    reason = (
        RejectReason.DEADLINE if path == ["deadline_ms"] and kind == "greater_than" else RejectReason.SCHEMA
    )
    return InvalidRequest(reason, error["msg"].replace("Input should be", "expected"), place)


def _too_many(place: str, limits: LimitSettings) -> InvalidRequest:
    message = f"expected at most {limits.max_candidates} candidates; send them in several requests"
    return InvalidRequest(RejectReason.TOO_MANY_CANDIDATES, message, place)


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
