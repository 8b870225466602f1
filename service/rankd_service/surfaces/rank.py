"""The scoring route, as plain ASGI: bytes in, bytes out, with nothing of the framework in between.

It translates and measures; what a request means is decided in the pipeline.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from rankd_service.admission.limiter import Limiter
from rankd_service.deadline import Clock, Deadline
from rankd_service.domain import Partition, Stage
from rankd_service.errors import RejectReason, RequestError, ServiceError, Unavailable
from rankd_service.lifecycle import Lifecycle
from rankd_service.pipeline import RankPipeline
from rankd_service.settings import LimitSettings
from rankd_service.stage_times import StageTimes
from rankd_service.surfaces.answer import encode_slate
from rankd_service.surfaces.errors import INTERNAL, Refusal, refusal, refusal_body
from rankd_service.surfaces.limits import (
    ClientGone,
    Headers,
    deadline_s,
    glimpsed_deadline_ms,
    header_deadline_ms,
    header_partition,
    read_body,
    request_id,
)
from rankd_service.surfaces.request import parse_request
from rankd_service.telemetry import ModelMetrics, Telemetry, Transport

__all__ = ["PATHS", "RankEndpoint", "RankFirst"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

PATHS = ("/v1/rank/{model}", "/v1/rank/{model}/versions/{version}")
_PATH = re.compile(r"/v1/rank/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?")
_CLIENT_GONE = "499"  # what nginx logs for it; no status is sent
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Exchange:
    """One request under way."""

    id: str
    model: str
    version: str | None
    headers: Headers
    started_s: float
    times: StageTimes
    metrics: ModelMetrics
    body_read: bool = False
    answer_headers: list[tuple[bytes, bytes]] = field(default_factory=list)


class RankEndpoint:
    """POST /v1/rank/{model} and /v1/rank/{model}/versions/{version}."""

    def __init__(
        self,
        pipeline: RankPipeline,
        lifecycle: Lifecycle,
        limiter: Limiter,
        telemetry: Telemetry,
        limits: LimitSettings,
        clock: Clock,
    ) -> None:
        """Keep the parts."""
        self._pipeline, self._lifecycle, self._telemetry = pipeline, lifecycle, telemetry
        self._limiter = limiter
        self._limits, self._clock = limits, clock

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request; every way out is counted once."""
        started_s, headers, path = self._clock.monotonic_s(), dict(scope["headers"]), scope["path_params"]
        exchange = _Exchange(
            id=request_id(headers),
            model=path["model"],
            version=path["version"],
            headers=headers,
            started_s=started_s,
            times=StageTimes(self._clock),
            metrics=self._telemetry.model(path["model"]),
        )
        code = _CLIENT_GONE
        exchange.metrics.inflight.inc()
        try:
            status, body = await self._answer(exchange, receive)
            code = str(status)
            await send({"type": "http.response.start", "status": status, "headers": _headers(exchange, body)})
            await send({"type": "http.response.body", "body": body})
        except ClientGone:
            pass
        finally:
            exchange.metrics.inflight.dec()
            spent_s = self._clock.monotonic_s() - started_s
            exchange.metrics.answered(Transport.HTTP, code, spent_s, exchange.times)

    async def _answer(self, exchange: _Exchange, receive: Receive) -> tuple[int, bytes]:
        try:
            return 200, await self._rank(exchange, receive)
        except ServiceError as error:
            if isinstance(error, RequestError | Unavailable):
                exchange.metrics.rejected(error.reason)
            what = refusal(error)
            if what is INTERNAL:
                _log.exception("request failed", extra={"request_id": exchange.id})
        except ClientGone:
            raise
        except Exception:
            _log.exception("request failed", extra={"request_id": exchange.id})
            what = INTERNAL
        return what.status, _refuse(exchange, what)

    async def _rank(self, exchange: _Exchange, receive: Receive) -> bytes:
        if self._lifecycle.draining:
            raise Unavailable(RejectReason.DRAINING, "this instance is about to stop; ask another one")
        body = await read_body(exchange.headers, receive, self._limits.max_body_bytes)
        exchange.body_read = True
        in_header_ms = header_deadline_ms(exchange.headers)
        allowed_s, _ = deadline_s(in_header_ms, glimpsed_deadline_ms(body), self._limits)
        with exchange.times(Stage.ADMISSION):
            partition = header_partition(exchange.headers)
            permit = await self._limiter.enter(partition, exchange.started_s + allowed_s)
        answered = False
        try:
            answer = await self._rank_admitted(exchange, body, in_header_ms, partition)
            answered = True
        finally:
            permit.leave(counts=answered)
        return answer

    async def _rank_admitted(
        self, exchange: _Exchange, body: bytes, in_header_ms: float | None, partition: Partition
    ) -> bytes:
        times = exchange.times
        model = self._pipeline.find(exchange.model, exchange.version)
        with times(Stage.PARSE):
            parsed = parse_request(body, exchange.id, self._limits)
            allowed_s, cut = deadline_s(in_header_ms, parsed.deadline_ms, self._limits)
        exchange.metrics.candidates.observe(len(parsed.request.candidates))
        deadline = Deadline(self._clock, exchange.started_s + allowed_s)
        slate = await self._pipeline.rank(model, parsed.request, deadline, times, partition)
        with times(Stage.SERIALIZE):
            took_s = self._clock.monotonic_s() - exchange.started_s
            answer = encode_slate(parsed.request, slate, took_s, times.seconds if parsed.timing else None)
        exchange.answer_headers.append((b"x-model-version", b"%d" % slate.model.version))
        if cut:
            exchange.answer_headers.append((b"x-deadline-ms", b"%d" % self._limits.max_deadline_ms))
        if slate.degraded:
            reasons = ", ".join(dict.fromkeys(d.reason.value for d in slate.degraded))
            exchange.answer_headers.append((b"x-degraded", reasons.encode()))
        if deadline.remaining_s() < 0:
            exchange.metrics.deadline_missed(Stage.SERIALIZE)  # too late to stop, and still worth sending
        if self._lifecycle.closes_connection():
            exchange.answer_headers.append((b"connection", b"close"))
        timing = ", ".join([f"{stage.value};dur={1000 * s:.3f}" for stage, s in times.seconds.items()])
        exchange.answer_headers.append((b"server-timing", timing.encode()))
        return answer


class RankFirst:
    """Hands ranking requests to their endpoint before the framework's own layers, all else to the framework.

    Those layers do nothing for a route that reads and answers bytes, and cost 55 us of a request's 1450.
    """

    def __init__(self, framework: App, endpoint: RankEndpoint) -> None:
        """Keep both."""
        self._framework, self._endpoint = framework, endpoint

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Route one request."""
        if scope["type"] == "http" and scope["method"] == "POST":
            match = _PATH.fullmatch(scope["path"])
            if match is not None:
                scope["path_params"] = match.groupdict()
                return await self._endpoint(scope, receive, send)
        return await self._framework(scope, receive, send)


def _refuse(exchange: _Exchange, what: Refusal) -> bytes:
    headers = [(name.lower().encode(), value.encode()) for name, value in what.headers]
    if not exchange.body_read:
        # What is left of the body would have to be read before the connection could be used again.
        headers.append((b"connection", b"close"))
    exchange.answer_headers = headers
    return refusal_body(what, exchange.id)


def _headers(exchange: _Exchange, body: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", exchange.id.encode()),
        *exchange.answer_headers,
    ]
