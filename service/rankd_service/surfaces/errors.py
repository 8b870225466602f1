"""Domain errors -> HTTP answers, in one table. Bodies name the place, never the value that stood there."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from rankd_service.errors import (
    DeadlineExceeded,
    InvalidRequest,
    MalformedRequest,
    RequestError,
    RequestTooLarge,
    ServiceError,
    Unavailable,
    UnknownModel,
    UnsupportedMedia,
)

__all__ = ["INTERNAL", "STATUSES", "Refusal", "refusal", "refusal_body"]

STATUSES: dict[type[ServiceError], int] = {
    MalformedRequest: 400,
    UnknownModel: 404,
    RequestTooLarge: 413,
    UnsupportedMedia: 415,
    InvalidRequest: 422,
    Unavailable: 503,
    DeadlineExceeded: 504,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is not 2xx, before it is written."""

    status: int
    code: str
    message: str
    field: str | None = None
    retryable: bool = False
    headers: tuple[tuple[str, str], ...] = ()


INTERNAL = Refusal(500, "INTERNAL", "the service failed; report it with the request id")


def refusal(error: ServiceError) -> Refusal:
    """Translate an error of the domain; one that is not for callers is a bug of ours, hence INTERNAL."""
    status = STATUSES.get(type(error))
    if status is None:
        return INTERNAL
    if isinstance(error, RequestError):
        return Refusal(status, error.reason.value.upper(), error.message, error.field)
    if isinstance(error, Unavailable):
        wait = (("Retry-After", str(max(1, round(error.retry_after_s)))),)
        return Refusal(status, error.reason.value.upper(), error.message, retryable=True, headers=wait)
    return Refusal(status, "DEADLINE_EXCEEDED", str(error))


def refusal_body(what: Refusal, request_id: str) -> bytes:
    """Write the body every answer that is not 2xx has."""
    error: dict[str, str | bool] = {"code": what.code, "message": what.message}
    if what.field is not None:
        error["field"] = what.field
    error["request_id"] = request_id
    error["retryable"] = what.retryable
    return orjson.dumps({"error": error})
