"""Probes and metrics: what orchestrators and Prometheus ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from rankd_service.lifecycle import Lifecycle, State

__all__ = ["Exposition", "health_routes"]

Exposition = Callable[[], Awaitable[Collector]]
"""Returns the metrics of the whole service as they are now."""

_NOT_YET: dict[int | str, dict[str, Any]] = {503: {"description": "Not yet, or no more; the body says why."}}


def health_routes(lifecycle: Lifecycle, exposition: Exposition) -> APIRouter:
    """Return the routes /livez, /startupz, /readyz and /metrics."""
    router = APIRouter(tags=["health"])

    @router.get("/livez", summary="Is the process alive?")
    async def livez() -> dict[str, str]:
        return {"state": lifecycle.state.value}

    @router.get("/startupz", summary="Has the start, with all its loading, ended?", responses=_NOT_YET)
    async def startupz() -> Response:
        started = lifecycle.state is not State.STARTING
        return JSONResponse({"state": lifecycle.state.value}, 200 if started else 503)

    @router.get("/readyz", summary="Should requests be sent here?", responses=_NOT_YET)
    async def readyz() -> Response:
        readiness = await lifecycle.readiness()
        return JSONResponse(asdict(readiness), 200 if readiness.ready else 503)

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def metrics(request: Request) -> Response:
        try:
            encode, content_type = choose_encoder(request.headers.get("accept", ""))
        except (TypeError, ValueError):  # a version that is no number
            encode, content_type = choose_encoder("")
        return Response(encode(await exposition()), media_type=content_type)

    return router
