"""A synchronous client of the ranking service: typed answers, and errors in the server's own words."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import httpx

__all__ = ["Client", "RankdError", "RankedItem", "Ranking", "whole_url"]

FieldValue = str | int | float | bool | None | list[str] | list[int]


class RankdError(Exception):
    """The service refused, or could not be reached.

    Attributes:
        status: HTTP status, or 0 where nothing answered.
        code: the service's error code, or `UNREACHABLE`.
        field: path of the offending field, where there is one.
        request_id: quote it when you report the error.
    """

    def __init__(
        self, status: int, code: str, message: str, field: str | None, request_id: str | None
    ) -> None:
        """Keep the parts apart; the text holds all of them."""
        place = f" (field {field})" if field else ""
        super().__init__(f"{code}: {message}{place}")
        self.status, self.code, self.message = status, code, message
        self.field, self.request_id = field, request_id


@dataclass(frozen=True, slots=True)
class RankedItem:
    """One place of the slate. `status` is not None where the item's features were not simply PRESENT.

    `scored` is False where there was no time to score it: its scores are what the model says on average.
    """

    id: str
    rank: int
    score: float
    scores: Mapping[str, float]
    status: str | None = None
    scored: bool = True


@dataclass(frozen=True, slots=True)
class Ranking:
    """An answer: the slate, who made it, and everything about it that was less than perfect."""

    id: str
    model: str
    version: int
    took_ms: float
    items: tuple[RankedItem, ...]
    degraded: tuple[Mapping[str, Any], ...] = ()
    feature_status: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    timing: Mapping[str, float] = field(default_factory=dict)


class Client:
    """Speaks to one service; safe to share between threads, closed by `with` or `close`."""

    def __init__(self, url: str = "http://127.0.0.1:8080", *, timeout_s: float = 5.0) -> None:
        """Connect lazily to the service at `url` (without a scheme, by http).

        `timeout_s` bounds each whole call on our side.
        """
        self._url = whole_url(url)
        # A proxy named in the environment is for the world outside, not for a service on this machine.
        self._http = httpx.Client(base_url=self._url, timeout=timeout_s, trust_env=not _is_here(self._url))

    def rank(
        self,
        model: str,
        user: str | int | Mapping[str, Any] | None,
        items: Sequence[str | int] | Sequence[Mapping[str, Any]],
        *,
        context: Mapping[str, FieldValue] | None = None,
        deadline_ms: float | None = None,
        top_k: int | None = None,
        timing: bool = False,
    ) -> Ranking:
        """Rank candidates, given by id or as `{"id": ..., "fields": {...}}`, for a user.

        A model of a table without users is asked with None.

        Raises:
            RankdError: the service refused the request or could not be reached.
        """
        by_id = not any(isinstance(item, Mapping) for item in items)
        body: dict[str, Any] = {"item_ids" if by_id else "items": list(items), "timing": timing}
        optional = {"user": user, "context": context, "deadline_ms": deadline_ms, "top_k": top_k}
        body.update({key: value for key, value in optional.items() if value is not None})
        # In the header it is known before the body is read, so that waiting to be let in heeds it too.
        headers = None if deadline_ms is None else {"X-Deadline-Ms": f"{deadline_ms:f}"}
        return self.ask(model, body, headers=headers)

    def ask(
        self, model: str, body: Mapping[str, Any], *, headers: Mapping[str, str] | None = None
    ) -> Ranking:
        """Send a request's body as it is. Raises RankdError as `rank` does."""
        return _ranking(self._call("POST", f"/v1/rank/{model}", body, headers))

    def models(self) -> list[Mapping[str, Any]]:
        """Return the models that are served."""
        answer = self._call("GET", "/v1/models")
        return list(answer["models"])

    def ready(self) -> bool:
        """Whether the service would serve a request now; False where nothing answers."""
        try:
            return self._http.get("/readyz").is_success
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, json=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            message = f"no answer from {self._url} ({error}); is `rankd serve` running?"
            raise RankdError(0, "UNREACHABLE", message, None, None) from error
        try:
            answer: dict[str, Any] = response.json()
        except ValueError:
            answer = {}
        if response.is_success:
            return answer
        error_body = answer.get("error", {})
        raise RankdError(
            response.status_code,
            error_body.get("code", f"HTTP_{response.status_code}"),
            error_body.get("message", "the answer was not one of rankd's"),
            error_body.get("field"),
            error_body.get("request_id"),
        )


def whole_url(url: str) -> str:
    """Return an address with its scheme, http where it has none, and without a slash at its end."""
    return (url if "://" in url else f"http://{url}").rstrip("/")


def _is_here(url: str) -> bool:
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _ranking(answer: Mapping[str, Any]) -> Ranking:
    return Ranking(
        id=answer["id"],
        model=answer["model"],
        version=answer["version"],
        took_ms=answer["took_ms"],
        items=tuple(
            RankedItem(i["id"], i["rank"], i["score"], i["scores"], i.get("status"), i.get("scored", True))
            for i in answer["items"]
        ),
        degraded=tuple(answer["degraded"]),
        feature_status=answer["feature_status"],
        timing=answer.get("timing", {}),
    )
