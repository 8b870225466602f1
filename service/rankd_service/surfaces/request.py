"""The wire form of a ranking request, and its way into the domain.

Requests are parsed strictly, straight from bytes: no unknown keys, no numbers in strings, no NaN. Of a key
given twice the last one counts. What can be long is measured before it is looked at piece by piece, so that
no request within the limit of bytes holds up the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn, Required, cast

from pydantic import ConfigDict, Discriminator, FailFast, Field, Tag, TypeAdapter, ValidationError
from pydantic import GetCoreSchemaHandler as Handler
from pydantic import GetJsonSchemaHandler as JsonHandler
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypedDict

from rankd_service.domain import NOBODY, Candidates, Fields, RankRequest, User
from rankd_service.errors import InvalidRequest, MalformedRequest, RejectReason, nearest, shown_key
from rankd_service.settings import MOST_CANDIDATES, LimitSettings
from rankd_service.surfaces.limits import check_ids

__all__ = ["ItemBody", "ParsedRequest", "RankBody", "UserBody", "parse_request"]

# Unknown keys are let through here and refused below: the validator would list every one of 70,000.
_STRICT = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
_MOST_FIELDS, _MOST_VALUES = 1000, 10_000
_SCALARS = frozenset({str, int, float, bool})
_MOST_SHOWN, _PLAIN_NUMBERS = 1e15, frozenset({"deadline_ms", "top_k"})
_SCALAR_OR_NULL = _SCALARS | {type(None)}
_KINDS = {
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
    list: "a list",
    dict: "an object",
}


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
        meaning = "At most 128 bytes of UTF-8; answered as a string."
        return {"anyOf": [text, {"type": "integer"}], "description": meaning}


class _ValueSchema:
    """A request-time value, checked in `_check_fields` and against its field's schema later."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Handler) -> CoreSchema:
        return core_schema.any_schema()

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: JsonHandler) -> dict[str, Any]:
        one = [{"type": t} for t in ("string", "boolean", "number")]
        several = {"type": "array", "items": {"anyOf": one}, "maxItems": _MOST_VALUES}
        return {"anyOf": [*one, {"type": "null"}, several]}


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
    """A ranking request. Exactly one of `items` and `item_ids` is given; ids are unique.

    `user` may be left out where the model's schema has no user.
    """

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    id: Annotated[str, Field(max_length=128, description="Comes back in the answer.")]
    user: Annotated[Annotated[Id, Tag("|id")] | Annotated[UserBody, Tag("|object")], Discriminator(_tag)]
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
    """A request, how soon its caller wants the answer, and whether with the time of each stage."""

    request: RankRequest
    deadline_ms: float | None
    timing: bool


def parse_request(body: bytes, request_id: str, limits: LimitSettings) -> ParsedRequest:
    """Read a request. Raises MalformedRequest where it is no JSON, InvalidRequest with the field's path."""
    try:
        tree = _READER.validate_json(body)
    except ValidationError as error:
        raise _objection(error.errors(include_url=False)[0], limits) from None
    _check_keys(tree, RankBody, "")
    if ("items" in tree) == ("item_ids" in tree):
        _refuse("expected exactly one of `items` and `item_ids`", "items")
    asked_id = tree.get("id", request_id)
    if "\0" in asked_id:
        _refuse("expected a string without NUL", "id")
    context: Fields = tree.get("context", {})
    _check_fields(context, "context")
    request = RankRequest(
        id=asked_id,
        user=_user(tree["user"], limits) if "user" in tree else NOBODY,
        candidates=_candidates(tree, limits),
        context=context,
        top_k=tree.get("top_k"),
        sort=tree.get("sort", True),
    )
    return ParsedRequest(request, tree.get("deadline_ms"), tree.get("timing", False))


def _user(given: str | int | UserBody, limits: LimitSettings) -> User:
    if not isinstance(given, dict):
        return User(_ids([given], limits, "user")[0])
    _check_keys(given, UserBody, "user.")
    fields: Fields = given.get("fields", {})
    _check_fields(fields, "user.fields")
    return User(_ids([given["id"]], limits, "user.id")[0], fields)


def _candidates(tree: RankBody, limits: LimitSettings) -> Candidates:
    if "item_ids" in tree:
        _check_count(tree["item_ids"], "item_ids", limits)
        return Candidates(_ids(tree["item_ids"], limits, "item_ids.{row}"))
    items = tree["items"]
    _check_count(items, "items", limits)
    fields: dict[int, Fields] = {}
    for row, item in enumerate(items):
        if len(item) > 1:
            _check_keys(item, ItemBody, f"items.{row}.")
            fields[row] = item["fields"]
            _check_fields(item["fields"], f"items.{row}.fields")
    return Candidates(_ids([item["id"] for item in items], limits, "items.{row}.id"), fields)


def _check_count(given: Sequence[Any], place: str, limits: LimitSettings) -> None:
    if not given:
        raise InvalidRequest(RejectReason.NO_CANDIDATES, "expected at least one candidate", place)
    if len(given) > limits.max_candidates:
        raise _too_many(place, limits)


def _ids(given: Sequence[str | int], limits: LimitSettings, place: str) -> list[str]:
    # Mostly they are strings already, and looking is cheaper than copying.
    ids: list[str] = list(map(str, given)) if int in set(map(type, given)) else cast("list[str]", given)
    check_ids(ids, limits.max_id_bytes, place)
    if len(set(ids)) != len(ids):
        first = {one: row for row, one in reversed(list(enumerate(ids)))}
        row = next(row for row, one in enumerate(ids) if first[one] != row)
        message = 'this id was already given (1 and "1" are the same id); send each candidate once'
        raise InvalidRequest(RejectReason.DUPLICATE, message, place.format(row=row))
    return ids


def _check_keys(given: Mapping[str, Any], body: type[Any], place: str) -> None:
    known = body.__annotations__
    if given.keys() <= known.keys():
        return
    unknown = next(key for key in given if key not in known)
    _refuse(f"unknown key; {nearest(unknown, list(known))}", place + shown_key(unknown))


def _check_fields(fields: Fields, place: str) -> None:
    if len(fields) > _MOST_FIELDS:
        _refuse(f"expected at most {_MOST_FIELDS} fields", place)
    for name, value in fields.items():
        if type(value) is list:
            if len(value) > _MOST_VALUES:
                _refuse(f"expected at most {_MOST_VALUES} values", f"{place}.{shown_key(name)}")
            kinds, numbers = set(map(type, value)) - _SCALARS, [v for v in value if type(v) is float]
        else:
            kinds, numbers = {type(value)} - _SCALAR_OR_NULL, [value] if type(value) is float else []
        if kinds:
            message = "expected a string, a number, a boolean, null, or a list of these without null"
            _refuse(message, f"{place}.{shown_key(name)}")
        if not all(map(math.isfinite, numbers)):
            where = f"{place}.{shown_key(name)}"
            raise InvalidRequest(RejectReason.NOT_FINITE, "expected a finite number", where)


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
    if kind == "missing":
        return InvalidRequest(RejectReason.SCHEMA, "this key is required", place)
    reason = RejectReason.DEADLINE if kind == "greater_than" else RejectReason.SCHEMA
    if kind == "string_too_long":
        return InvalidRequest(reason, f"expected at most {error['ctx']['max_length']} characters", place)
    expected = error["msg"].replace("Input should be", "expected")
    return InvalidRequest(reason, f"{expected}, got {_shown(error['input'], place)}", place)


def _shown(value: Any, place: str | None) -> str:
    """What was given, by its kind: only of numbers that are nobody's id or feature the value is said."""
    if type(value) in {int, float} and place in _PLAIN_NUMBERS and abs(value) < _MOST_SHOWN:
        return f"{value:.6g}"
    return _KINDS.get(type(value), "something else")


def _too_many(place: str, limits: LimitSettings) -> InvalidRequest:
    message = f"expected at most {limits.max_candidates} candidates; send them in several requests"
    return InvalidRequest(RejectReason.TOO_MANY_CANDIDATES, message, place)


def _refuse(message: str, place: str) -> NoReturn:
    raise InvalidRequest(RejectReason.SCHEMA, message, place)
