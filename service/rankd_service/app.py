"""The composition root: the one module that knows all the others. It wires and decides nothing."""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from rankd_service.admission.limit import GradientLimit
from rankd_service.admission.limiter import Limiter
from rankd_service.bundle_watch import BundleWatch
from rankd_service.deadline import Clock, SystemClock
from rankd_service.errors import StartupFailed, StoreErrorKind
from rankd_service.features.change_feed import HEARTBEAT_S, ChangeFeed, Feed
from rankd_service.features.cluster_feed import ClusterFeed
from rankd_service.features.cluster_store import ClusterStore
from rankd_service.features.embedded import EmbeddedStore
from rankd_service.features.near_cache import NearLimits
from rankd_service.features.near_caches import NearCaches
from rankd_service.features.redis_client import RedisClient
from rankd_service.features.redis_store import RedisStore
from rankd_service.features.store import FeatureStore
from rankd_service.features.store_address import StoreKind, parse_address
from rankd_service.gauges import CrewGauges
from rankd_service.inference.registry import ModelRegistry
from rankd_service.inference.runtime import runtime
from rankd_service.inference.session import cuda_absence
from rankd_service.inference.trust import read_keys
from rankd_service.lifecycle import Lifecycle
from rankd_service.listener import listen
from rankd_service.loop_watch import LoopWatch
from rankd_service.memory import MemoryWatch, Pressure, used_share
from rankd_service.pipeline import RankPipeline
from rankd_service.plan import Plan
from rankd_service.server import DrainingServer
from rankd_service.settings import (
    FeatureSettings,
    InferenceSettings,
    LimitSettings,
    ProviderChoice,
    RedisSettings,
    ServerSettings,
    Settings,
)
from rankd_service.surfaces.door import Door
from rankd_service.surfaces.health import Exposition, health_routes
from rankd_service.surfaces.http import add_routes
from rankd_service.surfaces.openapi import document
from rankd_service.surfaces.protocol import BoundedProtocol, Bounds
from rankd_service.surfaces.rank import RankEndpoint, RankFirst
from rankd_service.telemetry import UNKNOWN_MODEL, Telemetry

__all__ = ["Service", "build", "serve", "server_config", "wire"]

# One process does one thing at a time; more under way only overlap their waits for the store.
_FIRST_LIMIT, _LEAST_LIMIT = 8, 2
_OWN_DESCRIPTORS = 64  # for the store, for files, and to answer those who are refused
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """A wired service: what a server runs, and what the process around it needs to know."""

    app: FastAPI
    lifecycle: Lifecycle
    telemetry: Telemetry
    clock: Clock
    door: Door


def build(settings: Settings, store: FeatureStore | None = None, clock: Clock | None = None) -> FastAPI:
    """Wire the service and return what a server runs; see `wire`."""
    return wire(settings, store, clock).app


def wire(
    settings: Settings,
    store: FeatureStore | None = None,
    clock: Clock | None = None,
    crew: CrewGauges | None = None,
    exposition: Exposition | None = None,
    lets_go: Callable[[], bool] = lambda: False,
) -> Service:
    """Wire the service. Without `store` the one named in the settings is used, or an embedded one.

    Where this process is one of several, `crew` knows the others, `exposition` the metrics of all, and
    `lets_go` whether a connection had better be another's. Raises StartupFailed where the store's address is
    none, no embedded one can be started, or CUDA is required and absent.
    """
    runtime()  # not beside the loop, when the first model is loaded
    check_provider(settings.inference)
    read_keys(settings.models.trusted_keys)  # a mistake in them would refuse every bundle
    clock, telemetry, registry = clock or SystemClock(), Telemetry(CollectorRegistry()), ModelRegistry()
    near = near_caches(settings.features, clock)
    telemetry.watch_near_caches(near)
    embedded: EmbeddedStore | None = None
    feed: Feed | None = None
    if store is None:
        url = settings.redis.url.get_secret_value() if settings.redis.url else None
        if url is None:
            embedded = start_embedded(settings.redis)
            url = embedded.url
        store = open_store(url, settings.redis, telemetry)
        feed = open_feed(url, store, near, settings.redis, clock)
    pipeline = RankPipeline(registry, store, telemetry, settings, clock)
    bundles = BundleWatch(registry, near, feed, telemetry, settings)
    limiter = Limiter(_limit(settings.limits), clock, settings.limits.max_waiting)
    telemetry.watch_limiter(limiter)
    memory = MemoryWatch(used_share(settings.server.memory_mb))
    telemetry.watch_memory(memory)

    def look(late_s: float) -> None:
        telemetry.loop_lag.observe(late_s)
        memory.look()
        limiter.restrained = memory.pressure > Pressure.NONE

    lifecycle = Lifecycle(bundles, store, feed, settings, LoopWatch(look), memory, crew, lets_go)
    telemetry.watch_crew(lifecycle.crew)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        lifecycle.start()
        yield
        await lifecycle.stop()
        if embedded is not None:
            await asyncio.to_thread(embedded.stop)

    app = FastAPI(
        title="rankd",
        version=_version(),
        lifespan=lifespan,
        docs_url=None,  # the page would fetch its scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat whatever Host the request named
    )
    endpoint = RankEndpoint(pipeline, lifecycle, limiter, telemetry, settings.limits, clock)
    add_routes(app, pipeline, endpoint)
    app.include_router(health_routes(lifecycle, exposition or _own_metrics(telemetry)))
    document(app, settings.limits)
    app.middleware_stack = RankFirst(app.build_middleware_stack(), endpoint)
    return Service(app, lifecycle, telemetry, clock, Door(limiter, settings.limits, telemetry, memory))


def check_provider(settings: InferenceSettings) -> None:
    """Raise StartupFailed where CUDA is required and cannot be had: no model would ever be served."""
    absence = cuda_absence() if settings.provider is ProviderChoice.REQUIRE_CUDA else None
    if absence:
        raise StartupFailed(
            f"inference.provider is require_cuda, but {absence}; "
            "with prefer_cuda graphs run on the CPU instead"
        )


def _own_metrics(telemetry: Telemetry) -> Exposition:
    async def exposition() -> Collector:
        return telemetry.registry

    return exposition


def _limit(settings: LimitSettings) -> GradientLimit:
    most = settings.max_under_way
    return GradientLimit(min(_FIRST_LIMIT, most), min(_LEAST_LIMIT, most), most)


def start_embedded(settings: RedisSettings) -> EmbeddedStore:
    """Start the embedded store, or join the one that runs, and bring it back whenever it ends."""
    store = EmbeddedStore.attach_or_start(settings.embedded_folder, on_event=_log.warning)
    store.watch()
    return store


def near_caches(settings: FeatureSettings, clock: Clock) -> NearCaches:
    """Make the keeper of item rows that were read lately."""
    limits = NearLimits(
        bytes_a_view=int(settings.near_cache_mb * (1 << 20)),
        ttl_s=settings.near_cache_ttl_s,
        stale_s=settings.near_cache_stale_s,
        word_s=4 * HEARTBEAT_S,
    )
    return NearCaches(limits, clock)


def open_store(url: str, settings: RedisSettings, telemetry: Telemetry) -> RedisStore | ClusterStore:
    """Make the store's client; it connects when it is first needed. Raises StartupFailed for no address."""
    client = partial(
        RedisClient,
        connections=settings.connections,
        connect_timeout_s=settings.connect_timeout_ms / 1000,
        read_timeout_s=settings.read_timeout_ms / 1000,
        max_outstanding=settings.max_outstanding,
    )
    address = parse_address(url)
    store: RedisStore | ClusterStore
    if address.kind is StoreKind.CLUSTER:
        failures = telemetry.redis_errors.labels(StoreErrorKind.CLUSTER_DOWN.value)
        store = ClusterStore(address, client, on_map_failure=failures.inc)
    else:
        store = RedisStore(client(url))
    telemetry.watch_store(store)
    return store


def open_feed(
    url: str, store: RedisStore | ClusterStore, near: NearCaches, settings: RedisSettings, clock: Clock
) -> Feed:
    """Make what hears of the store's changes; it follows once it is started."""
    patience_s = settings.connect_timeout_ms / 1000
    if isinstance(store, ClusterStore):
        address = parse_address(url)
        return ClusterFeed(address, store.topology, near, connect_timeout_s=patience_s, clock=clock)
    return ChangeFeed(url, near, connect_timeout_s=patience_s, clock=clock)


def serve(settings: Settings, plan: Plan) -> None:
    """Serve in this process until SIGTERM or SIGINT, then finish what was accepted. Raises StartupFailed."""
    listener = listen(settings.server.host, settings.server.port)
    service = wire(settings)
    server = DrainingServer(
        server_config(service, settings.server),
        service.clock,
        service.lifecycle.drain,
        settings.server.lame_duck_s,
        listener,
    )
    host, port = listener.getsockname()[:2]
    _log.info("listening", extra={"host": host, "port": port, **plan.figures})
    server.run(sockets=[listener])
    if not server.started:
        raise StartupFailed("the server could not start; the log says why")
    _log.info("stopped")


def server_config(service: Service, settings: ServerSettings) -> uvicorn.Config:
    """Configure uvicorn for a wired service."""
    spare = _most_descriptors() - _OWN_DESCRIPTORS
    if spare < 1:
        raise StartupFailed(
            f"this process may open {_most_descriptors()} files, and needs {_OWN_DESCRIPTORS} for itself "
            "before the first connection; raise the limit (ulimit -n)"
        )
    bounds = Bounds(
        connections=min(settings.max_connections, spare),
        receive_s=settings.receive_s,
        rejected=service.telemetry.model(UNKNOWN_MODEL).rejected,
        door=service.door,
        short=service.door.is_short,
    )
    return uvicorn.Config(
        service.app,
        loop="uvloop",
        http=partial(BoundedProtocol, bounds=bounds),  # type: ignore[arg-type]  # it is only called
        ws="none",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=settings.drain_s,
    )


def _most_descriptors() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _version() -> str:
    try:
        return version("rankd")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
