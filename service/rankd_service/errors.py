"""Everything the service can object to. Domain errors know no transport; `surfaces/errors.py` translates.

ServiceError
  + RequestError         the caller's to mend
    - MalformedRequest   the body is not what its content type says
    - UnsupportedMedia   a content type or encoding we do not read
    - RequestTooLarge    more bytes than allowed
    - InvalidRequest     well-formed but not allowed; names the field
    - UnknownModel       no such model or version
  + Unavailable          not ready, draining or overloaded
  + DeadlineExceeded     no time left and nothing to serve
  + StoreUnavailable     the feature store gave no rows; the pipeline degrades
    - IncompleteRead     some of its servers gave theirs; holds them
  + BundleRefused        a bundle may not serve
  + StartupFailed        the process cannot start; the message says what to do
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "BundleRefused",
    "DeadlineExceeded",
    "IncompleteRead",
    "InvalidRequest",
    "Loss",
    "MalformedRequest",
    "RejectReason",
    "RequestError",
    "RequestTooLarge",
    "ServiceError",
    "StartupFailed",
    "StoreErrorKind",
    "StoreUnavailable",
    "Unavailable",
    "UnknownModel",
    "UnsupportedMedia",
    "nearest",
    "shown_key",
]

_MAX_KEY = 64


class RejectReason(StrEnum):
    """Why a request was refused; labels `rankd_rejected_total`."""

    MALFORMED = "malformed"
    MEDIA_TYPE = "media_type"
    ENCODING = "encoding"
    TOO_LARGE = "too_large"
    SCHEMA = "schema"
    NOT_FINITE = "not_finite"
    NO_CANDIDATES = "no_candidates"
    TOO_MANY_CANDIDATES = "too_many_candidates"
    DUPLICATE = "duplicate"
    DEADLINE = "deadline"
    UNKNOWN_MODEL = "unknown_model"
    NOT_READY = "not_ready"
    DRAINING = "draining"
    QUEUE_FULL = "queue_full"
    DEADLINE_INFEASIBLE = "deadline_infeasible"
    HEADERS = "headers"
    SLOW = "slow"
    CONNECTIONS = "connections"
    MEMORY = "memory"


class StoreErrorKind(StrEnum):
    """What went wrong between us and the feature store; labels `rankd_redis_errors_total`."""

    REFUSED = "refused"
    RESET = "reset"
    TIMEOUT = "timeout"
    BUSY = "busy"
    BREAKER_OPEN = "breaker_open"
    LOADING = "loading"
    AUTH = "auth"
    MOVED = "moved"
    CLUSTER_DOWN = "cluster_down"
    PROTOCOL = "protocol"
    REPLY = "reply"


class ServiceError(Exception):
    """Base of every error raised by this package."""


class RequestError(ServiceError):
    """The caller sent something that cannot be served.

    Attributes:
        reason: the metric label.
        field: path of the offending field, such as `items.3.id`, or None.
        message: for people; never holds the caller's values.
    """

    def __init__(self, reason: RejectReason, message: str, field: str | None = None) -> None:
        """Keep the parts apart: the surface reports them as they are."""
        super().__init__(message)
        self.reason, self.message, self.field = reason, message, field


class MalformedRequest(RequestError):
    """The body could not be read at all."""


class UnsupportedMedia(RequestError):
    """The content type or encoding is not one we read."""


class RequestTooLarge(RequestError):
    """The body is longer than allowed."""


class InvalidRequest(RequestError):
    """The body was read, and something in it is not allowed."""


class UnknownModel(RequestError):
    """No such model, or no such version of it."""


class Unavailable(ServiceError):
    """Not ready yet, or draining. `retry_after_s` says when to come back."""

    def __init__(self, reason: RejectReason, message: str, retry_after_s: float = 1.0) -> None:
        """Keep the reason for the metric and the wait for the header."""
        super().__init__(message)
        self.reason, self.message, self.retry_after_s = reason, message, retry_after_s


class DeadlineExceeded(ServiceError):
    """The deadline passed before there was anything to answer."""


class StoreUnavailable(ServiceError):
    """The store gave no rows for this request."""

    def __init__(self, kind: StoreErrorKind, message: str) -> None:
        """Keep the kind for the metric and for the degradation's reason."""
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Loss:
    """Keys of a read, by their positions, that one server gave no rows for, and why."""

    positions: Sequence[int]
    failure: StoreUnavailable


class IncompleteRead(StoreUnavailable):
    """Some servers of the store gave their rows and others did not; who has no use for a part has none.

    Attributes:
        rows: the values in the order of the keys, None also where they were lost.
        losses: what was lost, most keys first; no position stands in two of them.
    """

    def __init__(self, rows: Sequence[bytes | None], losses: Sequence[Loss]) -> None:
        """Be of the kind that lost the most keys."""
        super().__init__(losses[0].failure.kind, str(losses[0].failure))
        self.rows, self.losses = rows, losses


class BundleRefused(ServiceError):
    """A bundle failed its checks; what was served before goes on being served."""


class StartupFailed(ServiceError):
    """The process cannot start; the message says what is wrong and what to do."""


def nearest(name: str, known: Sequence[str]) -> str:
    """Return what to tell somebody who wrote a name nobody knows."""
    near = close_to(name, known)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"


def close_to(name: str, known: Sequence[str]) -> list[str]:
    """Return the known name that is nearest, whatever its case, if one is near."""
    by_lower = {one.lower(): one for one in known}
    return [by_lower[near] for near in difflib.get_close_matches(name[:_MAX_KEY].lower(), by_lower, 1)]


def shown_key(name: str, known: Sequence[str] = ()) -> str:
    """Return a caller's key as it may stand in an answer: never a value in disguise.

    What is no plain word is shown where it is nearly a `known` name, such as a column's for the field's.
    """
    if len(name) > _MAX_KEY or not name.isascii():
        return "?"
    plain = name.isidentifier() or (name.isprintable() and close_to(name, known))
    return name if plain else "?"
