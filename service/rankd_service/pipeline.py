"""A ranking request from candidates to slate: draft, fetch, assemble, infer, decide.

`surfaces/rank.py` calls this once a request is admitted and parsed, and writes the slate down afterwards.
Whatever the feature store does, a request that can be answered is: rows that did not come are rows kept from
earlier or default rows, what there is no time to score follows unscored, and the slate says so. Inference
runs on the event loop, once a turn and small requests together (`batching`): it takes about a millisecond,
less than handing it to another thread costs at the tail.

Legend: N candidates, T tasks, K candidates answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankd_contract.packing import FeatureStatus
from rankd_service.batching.batcher import Batcher
from rankd_service.deadline import Clock, Deadline
from rankd_service.decision.rank import fuse, rank
from rankd_service.domain import (
    Degradation,
    DegradeReason,
    ModelCard,
    Partition,
    RankRequest,
    Rung,
    Slate,
    Stage,
)
from rankd_service.errors import DeadlineExceeded, IncompleteRead, StoreErrorKind, StoreUnavailable
from rankd_service.features.assemble import Features
from rankd_service.features.store import FeatureStore
from rankd_service.inference.registry import LoadedModel, ModelRegistry
from rankd_service.settings import Settings
from rankd_service.stage_times import StageTimes
from rankd_service.telemetry import ModelMetrics, Telemetry

__all__ = ["RankPipeline"]

_REASONS = {
    StoreErrorKind.REFUSED: DegradeReason.STORE_DOWN,
    StoreErrorKind.RESET: DegradeReason.STORE_DOWN,
    StoreErrorKind.LOADING: DegradeReason.STORE_DOWN,
    StoreErrorKind.CLUSTER_DOWN: DegradeReason.STORE_DOWN,
    StoreErrorKind.TIMEOUT: DegradeReason.STORE_TIMEOUT,
    StoreErrorKind.BREAKER_OPEN: DegradeReason.STORE_TIMEOUT,  # several before this one waited in vain
    StoreErrorKind.BUSY: DegradeReason.STORE_BUSY,
}


@dataclass(frozen=True, slots=True)
class _Fetched:
    rows: Sequence[bytes | None] | FeatureStatus
    failure: DegradeReason | None = None
    lost: NDArray[np.uint8] | None = None


class RankPipeline:
    """Ranks candidates with the models of a registry and the rows of a store."""

    def __init__(
        self,
        registry: ModelRegistry,
        store: FeatureStore,
        telemetry: Telemetry,
        settings: Settings,
        clock: Clock,
    ) -> None:
        """Keep the parts; they are opened and closed by whoever made them."""
        self._registry, self._store, self._telemetry, self._clock = registry, store, telemetry, clock
        self._fetch_cap_s = settings.features.fetch_cap_ms / 1000
        self._reserve_s = settings.limits.reserve_ms / 1000
        self._batcher = Batcher(settings.batching, settings.limits.answer_ms / 1000, telemetry)
        self._fetching = 0
        self._missing_share = settings.features.degraded_missing_share

    def find(self, name: str, version: str | None) -> LoadedModel:
        """Return the model a request is for; it stays the same one to the end. Raises UnknownModel."""
        return self._registry.snapshot.find(name, version)

    def cards(self) -> list[ModelCard]:
        """Return what is served."""
        return self._registry.snapshot.cards()

    async def rank(
        self,
        model: LoadedModel,
        request: RankRequest,
        deadline: Deadline,
        times: StageTimes,
        partition: Partition = Partition.LIVE,
    ) -> Slate:
        """Rank the candidates of one request. Raises InvalidRequest or DeadlineExceeded."""
        metrics = self._telemetry.model(model.card.name)
        now_s = self._clock.wall_s()
        with times(Stage.PARSE):
            overrides = model.assembler.overrides(request)
            context = model.assembler.context(request.context, now_s)
        self._check(deadline, Stage.FEATURE_FETCH, metrics)
        with times(Stage.FEATURE_FETCH):
            # What the near cache holds is in the drafts already; only the other keys are asked for.
            drafts = model.assembler.draft(request.user, request.candidates, now_s)
            fetched = await self._fetch(drafts.keys, deadline)
        self._check(deadline, Stage.INFER, metrics)
        with times(Stage.ASSEMBLE):
            features = model.assembler.assemble(drafts, context, overrides, fetched.rows, now_s, fetched.lost)
        n = len(request.candidates)
        with times(Stage.INFER):
            # Whoever waits for the store may have its rows in this very turn of the loop.
            company = self._fetching > 0
            try:
                found = await self._batcher.score(
                    model,
                    features.batch,
                    deadline,
                    company=company,
                    partition=partition,
                    cheaper=self._registry.snapshot.cheaper(model),
                )
            except DeadlineExceeded:
                metrics.deadline_missed(Stage.INFER)
                raise
            scores_NT, scored, by = found.scores_NT, found.rows, found.model
        with times(Stage.POSTPROCESS):
            fused_N = fuse(scores_NT, by.fusion_T)
            ranking = rank(fused_N, request.top_k, request.sort, scored)
            nonfinite = int((~np.isfinite(fused_N)).sum())
            degraded = self._degradations(n, fetched, features, scored, nonfinite, by is not model)
            self._count(metrics, features, degraded)
        return Slate(
            model=by.card,
            order=ranking.order,
            ranks=ranking.ranks,
            scores=fused_N[ranking.order],
            task_scores_KT=scores_NT[ranking.order],
            statuses=features.statuses,
            degraded=degraded,
            scored=scored,
        )

    async def _fetch(self, keys: Sequence[str], deadline: Deadline) -> _Fetched:
        budget_s = deadline.budget_s(self._fetch_cap_s, self._reserve_s)
        if budget_s <= 0:
            return _Fetched(FeatureStatus.TIMED_OUT, DegradeReason.NO_TIME)
        started_s = self._clock.monotonic_s()
        self._fetching += 1
        try:
            return _Fetched(await self._store.read(keys, budget_s))
        except IncompleteRead as error:
            lost = np.zeros(len(keys), np.uint8)
            for loss in error.losses:
                lost[loss.positions] = self._lost(loss.failure)
            return _Fetched(error.rows, _REASONS.get(error.kind, DegradeReason.STORE_ERROR), lost)
        except StoreUnavailable as error:
            # A read that fails at once waits for nothing; without a pause here every request would run from
            # beginning to end by itself, nobody would ever be seen to wait, and nobody be turned away.
            await asyncio.sleep(0)
            return _Fetched(self._lost(error), _REASONS.get(error.kind, DegradeReason.STORE_ERROR))
        finally:
            self._fetching -= 1
            self._telemetry.redis_read.observe(self._clock.monotonic_s() - started_s)

    def _lost(self, failure: StoreUnavailable) -> FeatureStatus:
        """Count a failure of the store -> the status of its rows."""
        self._telemetry.redis_errors.labels(failure.kind.value).inc()
        timed_out = failure.kind is StoreErrorKind.TIMEOUT
        return FeatureStatus.TIMED_OUT if timed_out else FeatureStatus.DEFAULTED

    def _degradations(
        self,
        n: int,
        fetched: _Fetched,
        features: Features,
        scored: int,
        nonfinite: int,
        by_cheaper: bool,
    ) -> tuple[Degradation, ...]:
        degraded = []
        if fetched.failure is not None:
            # Where the user's row is lost, all are: every score rests on it.
            if features.lost:
                degraded.append(Degradation(fetched.failure, Rung.DEFAULT_ROW, features.lost))
            if features.stale:
                degraded.append(Degradation(fetched.failure, Rung.NEAR_CACHE_ROW, features.stale))
        missing = features.defaulted - features.lost
        if missing > self._missing_share * n:
            # A few unknown candidates are how a catalogue grows and each says so itself; when most are
            # unknown, the import or the namespace is wrong, and the order is not worth much.
            degraded.append(Degradation(DegradeReason.FEATURES_MISSING, Rung.DEFAULT_ROW, missing))
        if features.unreadable:
            degraded.append(Degradation(DegradeReason.ROWS_UNREADABLE, Rung.DEFAULT_ROW, features.unreadable))
        if by_cheaper:
            degraded.append(Degradation(DegradeReason.INFERENCE_LATE, Rung.CHEAPER_MODEL, scored))
        if scored < n:
            rung = Rung.FEWER_CANDIDATES if scored else Rung.RETRIEVAL_ORDER
            degraded.append(Degradation(DegradeReason.INFERENCE_LATE, rung, n - scored))
        if nonfinite:
            degraded.append(Degradation(DegradeReason.SCORE_NOT_FINITE, Rung.LAST_PLACE, nonfinite))
        return tuple(degraded)

    def _count(self, metrics: ModelMetrics, features: Features, degraded: tuple[Degradation, ...]) -> None:
        for view, statuses in features.by_view.items():
            self._telemetry.rows_read(view, statuses)
        if features.ids_out_of_range:
            metrics.ids_out_of_range.inc(features.ids_out_of_range)
        for what in degraded:
            metrics.degraded(what)
            if what.reason is DegradeReason.SCORE_NOT_FINITE:
                metrics.scores_nonfinite.inc(what.affected)

    def _check(self, deadline: Deadline, stage: Stage, metrics: ModelMetrics) -> None:
        try:
            deadline.check(stage)
        except DeadlineExceeded:
            metrics.deadline_missed(stage)
            raise
