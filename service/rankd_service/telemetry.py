"""Every metric of the service, declared once. Label values are enums or come from our own configuration.

A model that is not served is labelled `unknown`, so that no request can add a series. Series of a served
model are made when it is loaded, so that a scrape shows zeros before the first request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, ProcessCollector

from rankd_contract.packing import FeatureStatus
from rankd_service.domain import DEGRADATIONS, Degradation, ModelCard, Stage
from rankd_service.errors import RejectReason, StoreErrorKind
from rankd_service.gauges import (
    CrewCollector,
    CrewGauges,
    LimiterGauges,
    MemoryGauges,
    NearCacheCollector,
    NearGauges,
    StoreGauges,
)
from rankd_service.stage_times import StageTimes

__all__ = [
    "UNKNOWN_MODEL",
    "LoadOutcome",
    "ModelMetrics",
    "Telemetry",
    "Transport",
]

UNKNOWN_MODEL = "unknown"
OK = "200"

# Dense between 1 and 50 ms, where the budget lives; common defaults begin at 5 ms and show nothing here.
_LATENCY_S = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.25, 0.5, 1.0, 2.5),
)
# Stages are parts of a request: the shortest take tens of microseconds.
_STAGE_S = (0.00005, 0.0001, 0.0002, *_LATENCY_S)
_ROWS = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2000, 4000)
_REQUESTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)


class Transport(StrEnum):
    """How a request came in; a label value."""

    HTTP = "http"


class LoadOutcome(StrEnum):
    """What became of a bundle that was to be served; a label value."""

    LOADED = "loaded"
    REFUSED = "refused"
    FAILED = "failed"


class Telemetry:
    """The service's metrics, in a registry that is passed in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Declare everything; two services in one process need two registries."""
        self.registry = registry
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        self.requests = Counter(
            "rankd_requests", "Requests by outcome.", ["model", "transport", "code"], registry=registry
        )
        self.request_duration = Histogram(
            "rankd_request_duration_seconds",
            "Time from the first byte read to the answer handed over.",
            ["model", "transport"],
            buckets=_LATENCY_S,
            registry=registry,
        )
        self.stage_duration = Histogram(
            "rankd_stage_duration_seconds",
            "Time spent in one stage of a request.",
            ["model", "stage"],
            buckets=_STAGE_S,
            registry=registry,
        )
        self.deadline_missed = Counter(
            "rankd_deadline_missed", "Requests whose deadline passed.", ["model", "stage"], registry=registry
        )
        self.rejected = Counter(
            "rankd_rejected", "Requests refused, by reason.", ["model", "reason"], registry=registry
        )
        self.degraded = Counter(
            "rankd_degraded",
            "Answers that hold less than everything.",
            ["model", "stage", "rung", "reason"],
            registry=registry,
        )
        self.candidates = Histogram(
            "rankd_candidates", "Candidates in a request.", ["model"], buckets=_ROWS, registry=registry
        )
        self.batch_requests = Histogram(
            "rankd_batch_requests",
            "Requests in a batch.",
            ["model"],
            buckets=_REQUESTS,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "rankd_batch_rows", "Candidates in a batch.", ["model"], buckets=_ROWS, registry=registry
        )
        self.inflight = Gauge(
            "rankd_inflight_requests", "Requests being worked on.", ["model"], registry=registry
        )
        self.feature_reads = Counter(
            "rankd_feature_reads",
            "Feature rows asked for, by outcome.",
            ["view", "status"],
            registry=registry,
        )
        self.ids_out_of_range = Counter(
            "rankd_ids_out_of_range",
            "Stored ids beyond their table, read as unknown.",
            ["model"],
            registry=registry,
        )
        self.scores_nonfinite = Counter(
            "rankd_scores_nonfinite", "Candidates whose score was not a number.", ["model"], registry=registry
        )
        self.redis_errors = Counter(
            "rankd_redis_errors", "Reads the feature store did not answer.", ["kind"], registry=registry
        )
        self.redis_duration = Histogram(
            "rankd_redis_duration_seconds",
            "Time a request waited for the feature store.",
            ["op"],
            buckets=_LATENCY_S,
            registry=registry,
        )
        self.loop_lag = Histogram(
            "rankd_loop_lag_seconds",
            "How late the event loop came to what was due, looked at four times a second.",
            buckets=_LATENCY_S,
            registry=registry,
        )
        self.model_info = Gauge(
            "rankd_model_info",
            "1 for each model version that is served.",
            ["model", "version", "digest", "provider"],
            registry=registry,
        )
        self.model_nodes = Gauge(
            "rankd_model_nodes",
            "Nodes of a served model's graph, by the provider that runs them.",
            ["model", "version", "provider"],
            registry=registry,
        )
        self.model_fallback = Gauge(
            "rankd_model_fallback",
            "1 for a served model that runs on the CPU though CUDA was preferred, else 0.",
            ["model", "version"],
            registry=registry,
        )
        bundle_loads = Counter(
            "rankd_bundle_loads", "Bundles that were to be served.", ["outcome"], registry=registry
        )
        self._bundle_loads = {o: bundle_loads.labels(o.value) for o in LoadOutcome}
        for kind in StoreErrorKind:
            self.redis_errors.labels(kind.value)
        self.redis_read = self.redis_duration.labels("mget")
        self._models = {UNKNOWN_MODEL: ModelMetrics(self, UNKNOWN_MODEL)}
        self._views: dict[str, list[Counter]] = {}

    def model(self, name: str) -> ModelMetrics:
        """Return the series of a served model, or those of `unknown`; never makes new ones."""
        return self._models.get(name) or self._models[UNKNOWN_MODEL]

    def serve(self, card: ModelCard, views: Sequence[str]) -> None:
        """Make the series of a model that is about to be served, and of the views it reads."""
        if card.name not in self._models:
            self._models[card.name] = ModelMetrics(self, card.name)
        for view in views:
            self._views.setdefault(view, [self.feature_reads.labels(view, s.name) for s in FeatureStatus])

    def show_models(self, cards: Iterable[ModelCard]) -> None:
        """Say which versions answer now; those that did before are shown no more."""
        for gauge in (self.model_info, self.model_nodes, self.model_fallback):
            gauge.clear()
        for card in cards:
            version = str(card.version)
            self.model_info.labels(card.name, version, card.digest[:12], card.provider).set(1)
            self.model_fallback.labels(card.name, version).set(bool(card.fallback))
            for provider, count in card.nodes.items():
                self.model_nodes.labels(card.name, version, provider).set(count)

    def bundle_loaded(self, outcome: LoadOutcome) -> None:
        """Count one bundle that was to be served."""
        self._bundle_loads[outcome].inc()

    def watch_store(self, store: StoreGauges) -> None:
        """Expose how the store's client does, as it is when metrics are read."""
        for name, meaning, read in (
            ("reads_outstanding", "Reads that have not ended.", lambda: store.outstanding),
            ("reads_abandoned", "Reads that nobody waits for any more.", lambda: store.abandoned),
            ("connections_opened", "Connections opened since the start.", lambda: store.connections_opened),
        ):
            Gauge(f"rankd_redis_{name}", meaning, registry=self.registry).set_function(read)

    def watch_limiter(self, limiter: LimiterGauges) -> None:
        """Expose how many requests may be under way, are, and wait, as it is when metrics are read."""
        for name, meaning, read in (
            ("rankd_concurrency_limit", "Requests that may be under way.", lambda: limiter.value),
            ("rankd_admitted_requests", "Requests under way.", lambda: limiter.under_way),
            ("rankd_queue_depth", "Requests that wait to be admitted.", lambda: limiter.waiting),
        ):
            Gauge(name, meaning, registry=self.registry).set_function(read)

    def watch_memory(self, memory: MemoryGauges) -> None:
        """Expose how much of its memory the process has used, as it was when it was last looked at."""
        used = Gauge(
            "rankd_memory_used_ratio", "Share of the memory allowed; 0: no limit.", registry=self.registry
        )
        used.set_function(lambda: memory.share)

    def watch_near_caches(self, caches: NearGauges) -> None:
        """Expose how many item rows were near at hand, as it is when metrics are read."""
        self.registry.register(NearCacheCollector(caches))

    def watch_crew(self, crew: CrewGauges) -> None:
        """Expose how the processes do that serve together, as it is when metrics are read."""
        self.registry.register(CrewCollector(crew))

    def rows_read(self, view: str, statuses: NDArray[np.uint8]) -> None:
        """Count rows of one view of a served model, by status."""
        series = self._views[view]
        for status, count in enumerate(np.bincount(statuses).tolist()):
            if count:
                series[status].inc(count)


class ModelMetrics:
    """Series of one model, looked up once: a label look-up costs more than counting."""

    def __init__(self, telemetry: Telemetry, model: str) -> None:
        """Make the series a request may touch; only answers' codes come into being when first needed."""
        self._telemetry, self._name = telemetry, model
        self._stages = {s: telemetry.stage_duration.labels(model, s.value) for s in Stage}
        self.candidates = telemetry.candidates.labels(model)
        self._batch_requests = telemetry.batch_requests.labels(model)
        self._batch_rows = telemetry.batch_rows.labels(model)
        self.inflight = telemetry.inflight.labels(model)
        self.ids_out_of_range = telemetry.ids_out_of_range.labels(model)
        self.scores_nonfinite = telemetry.scores_nonfinite.labels(model)
        self._rejected = {r: telemetry.rejected.labels(model, r.value) for r in RejectReason}
        self._degraded = {
            (reason, rung): telemetry.degraded.labels(model, stage.value, rung.value, reason.value)
            for reason, (stage, rungs) in DEGRADATIONS.items()
            for rung in rungs
        }
        self._durations = {t: telemetry.request_duration.labels(model, t.value) for t in Transport}
        self._outcomes = {(t, OK): telemetry.requests.labels(model, t.value, OK) for t in Transport}

    def answered(self, transport: Transport, code: str, duration_s: float, times: StageTimes) -> None:
        """Count one request by outcome, with its duration and those of its stages."""
        self.refused(transport, code)
        self._durations[transport].observe(duration_s)
        for stage, spent_s in times.seconds.items():
            self._stages[stage].observe(spent_s)

    def refused(self, transport: Transport, code: str) -> None:
        """Count one request by outcome alone."""
        outcome = self._outcomes.get((transport, code))
        if outcome is None:
            outcome = self._telemetry.requests.labels(self._name, transport.value, code)
            self._outcomes[transport, code] = outcome
        outcome.inc()

    def rejected(self, reason: RejectReason) -> None:
        """Count one refusal."""
        self._rejected[reason].inc()

    def batched(self, requests: int, rows: int) -> None:
        """Count one batch."""
        self._batch_requests.observe(requests)
        self._batch_rows.observe(rows)

    def degraded(self, what: Degradation) -> None:
        """Count one degradation."""
        self._degraded[what.reason, what.rung].inc()

    def deadline_missed(self, stage: Stage) -> None:
        """Count one request whose deadline passed in, or before, a stage."""
        self._telemetry.deadline_missed.labels(self._name, stage.value).inc()
