"""The composition root: the one module that knows all the others. It wires and decides nothing."""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from rankd_service.deadline import Clock, SystemClock
from rankd_service.errors import StartupFailed
from rankd_service.features.store import FeatureStore
from rankd_service.inference.registry import ModelRegistry
from rankd_service.lifecycle import Lifecycle
from rankd_service.logs import log_to_stderr
from rankd_service.pipeline import RankPipeline
from rankd_service.settings import Settings
from rankd_service.surfaces.health import health_routes
from rankd_service.surfaces.http import add_routes
from rankd_service.surfaces.openapi import document
from rankd_service.surfaces.rank import RankEndpoint, RankFirst
from rankd_service.telemetry import Telemetry

__all__ = ["build", "serve"]


def build(settings: Settings, store: FeatureStore | None = None, clock: Clock | None = None) -> FastAPI:
    """Wire the service. Without `store` the one named in the settings is opened, or an embedded one."""
    clock, store = clock or SystemClock(), store or open_store(settings)
    telemetry, registry = Telemetry(CollectorRegistry()), ModelRegistry()
    pipeline = RankPipeline(registry, store, telemetry, settings, clock)
    lifecycle = Lifecycle(registry, store, telemetry, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        lifecycle.start()
        yield
        await lifecycle.stop()

    app = FastAPI(title="rankd", version=_version(), lifespan=lifespan, docs_url=None, redoc_url=None)
    endpoint = RankEndpoint(pipeline, telemetry, settings.limits, clock)
    add_routes(app, pipeline, endpoint)
    app.include_router(health_routes(lifecycle, telemetry.registry))
    document(app, settings.limits)
    app.middleware_stack = RankFirst(app.build_middleware_stack(), endpoint)
    return app


def open_store(settings: Settings) -> FeatureStore:
    """Open the feature store the settings name, or start an embedded one where they name none."""
    from rankd_service.features.embedded import EmbeddedStore
    from rankd_service.features.redis_store import RedisStore

    url = settings.redis.url
    address = (
        url.get_secret_value() if url else EmbeddedStore.attach_or_start(settings.redis.embedded_folder).url
    )
    return RedisStore(address)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted. Raises StartupFailed."""
    log_to_stderr()
    listener = _listen(settings.server.host, settings.server.port)
    config = uvicorn.Config(
        build(settings),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=settings.server.keep_alive_s,
        timeout_graceful_shutdown=settings.server.drain_s,
    )
    for stop in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again once it has drained; without a handler that would be exit code -15.
        signal.signal(stop, lambda number, frame: None)
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    if not server.started:
        raise StartupFailed("the server could not start; the log says why")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartupFailed(
            f"cannot listen on {host} port {port}: {reason}; free the port or set server.port"
        ) from error


def _version() -> str:
    try:
        return version("rankd")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
