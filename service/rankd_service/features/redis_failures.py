"""What the failures of a Redis or Valkey server are called; one table for all ways to fail."""

from __future__ import annotations

from dataclasses import dataclass

import hiredis
from redis import exceptions as errors

from rankd_service.errors import StoreErrorKind
from rankd_service.features.store_address import NodeAddress

__all__ = ["FAILURES", "Redirect", "kind_of", "redirect_of"]

# ValueError and TypeError: a parser that is fed garbage. RuntimeError: uvloop, where a connection was lost
# before its use.
FAILURES = (errors.RedisError, hiredis.ReplyError, OSError, ValueError, TypeError, RuntimeError)
_KINDS: tuple[tuple[tuple[type[Exception], ...], StoreErrorKind], ...] = (
    ((errors.AuthenticationError, errors.AuthorizationError, errors.NoPermissionError), StoreErrorKind.AUTH),
    ((errors.AuthenticationWrongNumberOfArgsError,), StoreErrorKind.AUTH),
    ((errors.BusyLoadingError, errors.MasterDownError), StoreErrorKind.LOADING),
    ((errors.AskError,), StoreErrorKind.MOVED),  # MovedError is one
    ((errors.ClusterDownError,), StoreErrorKind.CLUSTER_DOWN),
    ((errors.InvalidResponse, ValueError, TypeError), StoreErrorKind.PROTOCOL),
    ((errors.ResponseError, hiredis.ReplyError), StoreErrorKind.REPLY),
    ((errors.TimeoutError, TimeoutError), StoreErrorKind.TIMEOUT),
)

_REPLY_KINDS = {
    "NOAUTH": StoreErrorKind.AUTH,
    "NOPERM": StoreErrorKind.AUTH,
    "WRONGPASS": StoreErrorKind.AUTH,
    "LOADING": StoreErrorKind.LOADING,
    "MASTERDOWN": StoreErrorKind.LOADING,
    "MOVED": StoreErrorKind.MOVED,
    "ASK": StoreErrorKind.MOVED,
    "CLUSTERDOWN": StoreErrorKind.CLUSTER_DOWN,
}


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where a cluster's node says a key is: for good, or, `asking`, for this one question."""

    node: NodeAddress
    asking: bool


def redirect_of(error: Exception, asked: NodeAddress) -> Redirect | None:
    """Read the reply of the node `asked` that sends a question elsewhere; None where it does not."""
    if isinstance(error, errors.AskError):
        host, port, asking = error.host, error.port, not isinstance(error, errors.MovedError)
    else:
        word, _, where = str(error).partition(" ")
        if word not in {"MOVED", "ASK"}:
            return None
        host, _, last = where.rpartition(" ")[2].rpartition(":")
        if not last.isdecimal():
            return None
        port, asking = int(last), word == "ASK"
    return Redirect(NodeAddress(host or asked.host, port), asking)


def kind_of(error: Exception, connecting: bool) -> StoreErrorKind:
    """Return what kind of failure an error is; `connecting` where no connection stood yet."""
    if isinstance(error, hiredis.ReplyError) and str(error).partition(" ")[0] in _REPLY_KINDS:
        return _REPLY_KINDS[str(error).partition(" ")[0]]
    if isinstance(error, errors.ResponseError | hiredis.ReplyError) and "unauthenticated" in str(error):
        return StoreErrorKind.AUTH  # how Redis 7.0 refuses a long command of somebody it does not know
    lost = StoreErrorKind.REFUSED if connecting else StoreErrorKind.RESET
    return next((kind for kinds, kind in _KINDS if isinstance(error, kinds)), lost)
