"""The request path with a store and a clock of ours: what is answered when parts of it fail or run late."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rankd_contract.packing import FeatureStatus
from rankd_contract.schema import Entity
from rankd_service.deadline import Deadline
from rankd_service.domain import Candidates, DegradeReason, RankRequest, Rung, Slate, Stage, User
from rankd_service.errors import DeadlineExceeded, InvalidRequest, StoreErrorKind, Unavailable, UnknownModel
from rankd_service.inference.registry import ModelRegistry
from rankd_service.pipeline import RankPipeline
from rankd_service.stage_times import StageTimes
from tests.service.pipeline_bench import ITEMS, SCHEMA, Bench
from tests.support.bundles import (
    echo,
    item_rows,
    price,
    user_rows,
)
from tests.support.clock import JumpingClock
from tests.support.memory_store import MemoryStore


def test_the_best_come_first_with_the_scores_of_their_own_rows(tmp_path: Path) -> None:
    bench = Bench(tmp_path, price)
    slate = bench.rank(["3", "9", "0", "5"], top_k=3)
    assert [["3", "9", "0", "5"][at] for at in slate.order] == ["9", "5", "3"]
    assert slate.scores.tolist() == pytest.approx([0.09, 0.05, 0.03], rel=1e-5)
    assert slate.task_scores_KT.shape == (3, 2)
    assert slate.degraded == ()


def test_p2_a_candidates_score_is_the_same_in_whatever_company_it_comes(tmp_path: Path) -> None:
    bench = Bench(tmp_path, echo)
    alone = {one: bench.rank([one]).scores[0] for one in ITEMS}
    for items in (ITEMS, ITEMS[::-1], ITEMS[3:7]):
        slate = bench.rank(items)
        assert {items[at]: score for at, score in zip(slate.order, slate.scores, strict=True)} == {
            one: alone[one] for one in items
        }


@pytest.mark.parametrize(
    ("kind", "reason", "status"),
    [
        (StoreErrorKind.REFUSED, DegradeReason.STORE_DOWN, FeatureStatus.DEFAULTED),
        (StoreErrorKind.RESET, DegradeReason.STORE_DOWN, FeatureStatus.DEFAULTED),
        (StoreErrorKind.LOADING, DegradeReason.STORE_DOWN, FeatureStatus.DEFAULTED),
        (StoreErrorKind.TIMEOUT, DegradeReason.STORE_TIMEOUT, FeatureStatus.TIMED_OUT),
        (StoreErrorKind.BUSY, DegradeReason.STORE_BUSY, FeatureStatus.DEFAULTED),
        (StoreErrorKind.AUTH, DegradeReason.STORE_ERROR, FeatureStatus.DEFAULTED),
        (StoreErrorKind.PROTOCOL, DegradeReason.STORE_ERROR, FeatureStatus.DEFAULTED),
        (StoreErrorKind.REPLY, DegradeReason.STORE_ERROR, FeatureStatus.DEFAULTED),
    ],
)
def test_p4_a_store_that_fails_degrades_the_answer_and_says_why(
    tmp_path: Path, kind: StoreErrorKind, reason: DegradeReason, status: FeatureStatus
) -> None:
    bench = Bench(tmp_path, price)
    bench.store.failure = kind
    slate = bench.rank()
    (degradation,) = slate.degraded
    assert (degradation.stage, degradation.rung) == (Stage.FEATURE_FETCH, Rung.DEFAULT_ROW)
    assert (degradation.reason, degradation.affected) == (reason, 10)
    assert slate.order.tolist() == list(range(10)), "equal scores keep the order of the request"
    assert slate.scores.tolist() == [0.5] * 10, "the declared default of the price"
    assert set(slate.statuses[Entity.ITEM].tolist()) == {status}
    assert bench.metric("rankd_redis_errors_total", kind=kind.value) == 1
    labels = {"model": "films", "stage": "feature_fetch", "rung": "default_row", "reason": reason.value}
    assert bench.metric("rankd_degraded_total", **labels) == 1


def test_b1_few_missing_candidates_are_no_degradation_and_many_are(tmp_path: Path) -> None:
    bench = Bench(tmp_path, price)
    assert bench.rank(["1", "2", "nosuch", "neither"]).degraded == ()
    (degradation,) = bench.rank(["1", "a", "b", "c"]).degraded
    assert (degradation.reason, degradation.affected) == (DegradeReason.FEATURES_MISSING, 3)
    assert bench.metric("rankd_feature_reads_total", view="item", status="NOT_FOUND") == 5
    assert bench.metric("rankd_feature_reads_total", view="item", status="PRESENT") == 3


def test_b2_a_new_user_is_no_degradation(tmp_path: Path) -> None:
    slate = Bench(tmp_path, price).rank(user="nobody")
    assert slate.degraded == ()
    assert slate.statuses[Entity.USER].tolist() == [FeatureStatus.NOT_FOUND]


def test_c22_a_score_that_is_no_number_comes_last_and_is_said(tmp_path: Path) -> None:
    bench = Bench(tmp_path, price)
    bench.store.rows |= item_rows(SCHEMA, ["4", "6"], bench.clock.wall_s(), [-1.0, -2.0])
    slate = bench.rank()
    assert slate.order.tolist()[-2:] == [4, 6]
    assert np.isnan(slate.scores[-2:]).all()
    (degradation,) = slate.degraded
    assert (degradation.stage, degradation.reason) == (Stage.INFER, DegradeReason.SCORE_NOT_FINITE)
    assert degradation.affected == 2
    assert bench.metric("rankd_scores_nonfinite_total", model="films") == 2


class LateStore(MemoryStore):
    """A store during whose reads time passes."""

    def __init__(self, clock: JumpingClock, takes_s: float) -> None:
        super().__init__()
        self.budgets: list[float] = []
        self._clock, self._takes_s = clock, takes_s

    async def read(self, keys: Sequence[str], budget_s: float) -> list[bytes | None]:
        self.budgets.append(budget_s)
        self._clock.jump(self._takes_s)
        return await super().read(keys, budget_s)


def late(tmp_path: Path, takes_s: float) -> tuple[Bench, LateStore]:
    bench = Bench(tmp_path, price)
    store = LateStore(bench.clock, takes_s)
    store.rows = bench.rows
    bench.pipeline = RankPipeline(
        bench.pipeline._registry, store, bench.telemetry, bench.settings, bench.clock
    )
    return bench, store


def test_the_store_gets_its_cap_or_what_the_deadline_leaves(tmp_path: Path) -> None:
    bench, store = late(tmp_path, 0.0)
    bench.rank(allowed_s=1.0)
    bench.rank(allowed_s=0.015)
    assert store.budgets == pytest.approx([0.050, 0.010])


def test_with_no_time_to_read_the_answer_is_of_default_rows(tmp_path: Path) -> None:
    bench, store = late(tmp_path, 0.0)
    slate = bench.rank(allowed_s=0.004)
    assert [d.reason for d in slate.degraded] == [DegradeReason.NO_TIME]
    assert set(slate.statuses[Entity.ITEM].tolist()) == {FeatureStatus.TIMED_OUT}
    assert store.budgets == []


@pytest.mark.fault("E5")
def test_nothing_is_inferred_after_the_deadline(tmp_path: Path) -> None:
    bench, _ = late(tmp_path, 0.3)
    with pytest.raises(DeadlineExceeded):
        bench.rank(allowed_s=0.25)
    assert bench.metric("rankd_deadline_missed_total", model="films", stage="infer") == 1
    assert Stage.INFER not in bench.times.seconds


def test_stages_are_timed_by_the_clock_that_was_given(tmp_path: Path) -> None:
    bench, _ = late(tmp_path, 0.015)
    bench.rank()
    assert bench.times.seconds[Stage.FEATURE_FETCH] == pytest.approx(0.015)
    of_surfaces = {Stage.ADMISSION, Stage.SERIALIZE}
    assert list(bench.times.seconds) == [stage for stage in Stage if stage not in of_surfaces]


def test_an_invalid_field_costs_no_read(tmp_path: Path) -> None:
    bench = Bench(tmp_path, price)
    request = RankRequest("r", User("42", {"agee": 1}), Candidates(["1"]))
    deadline = Deadline(bench.clock, bench.clock.monotonic_s() + 1)
    model = bench.pipeline.find("films", None)
    with pytest.raises(InvalidRequest):
        asyncio.run(bench.pipeline.rank(model, request, deadline, bench.times))
    assert bench.store.reads == 0


def test_models_are_found_by_name_and_exact_version_only(tmp_path: Path) -> None:
    bench = Bench(tmp_path, price)
    assert bench.pipeline.find("films", "1").card.version == 1
    for name, version in (("film", None), ("films", "2"), ("films", "01"), ("films", ""), ("", None)):
        with pytest.raises(UnknownModel):
            bench.pipeline.find(name, version)


def test_without_any_model_requests_are_told_to_come_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path, price)
    empty = RankPipeline(ModelRegistry(), bench.store, bench.telemetry, bench.settings, bench.clock)
    with pytest.raises(Unavailable, match="no model is loaded"):
        empty.find("films", None)


@pytest.mark.fault("B12")
def test_a_user_row_that_cannot_be_read_is_a_degraded_answer(tmp_path: Path) -> None:
    bench = Bench(tmp_path, price)
    (mine,) = user_rows(SCHEMA, ["42"], bench.clock.wall_s())
    (of_another,) = user_rows(SCHEMA, ["43"], bench.clock.wall_s()).values()
    bench.store.rows[mine] = of_another
    slate = bench.rank()
    assert [(d.reason, d.affected) for d in slate.degraded] == [(DegradeReason.ROWS_UNREADABLE, 10)]
    assert slate.statuses[Entity.USER].tolist() == [FeatureStatus.FOREIGN]


@pytest.mark.fault("B3")
def test_item_rows_that_cannot_be_read_are_counted_in_a_degraded_answer(tmp_path: Path) -> None:
    bench = Bench(tmp_path, price)
    for key in list(item_rows(SCHEMA, ["3", "4"], bench.clock.wall_s(), [0.1, 0.1])):
        bench.store.rows[key] = bench.store.rows[key][:-1]
    slate = bench.rank()
    assert [(d.reason, d.affected) for d in slate.degraded] == [(DegradeReason.ROWS_UNREADABLE, 2)]


class TurnStore(MemoryStore):
    """A store whose answers come in a later turn of the event loop."""

    async def read(self, keys: Sequence[str], budget_s: float) -> list[bytes | None]:
        await asyncio.sleep(0)
        return await super().read(keys, budget_s)


def test_small_requests_whose_rows_come_together_share_a_run(tmp_path: Path) -> None:
    bench = Bench(tmp_path, echo)
    store = TurnStore(bench.rows)
    pipeline = RankPipeline(bench.pipeline._registry, store, bench.telemetry, bench.settings, bench.clock)
    alone = {one: bench.rank([one]).scores[0] for one in ITEMS}
    asked = [ITEMS[at : at + 4] for at in range(5)]

    async def one(items: Sequence[str]) -> Slate:
        deadline = Deadline(bench.clock, bench.clock.monotonic_s() + 0.25)
        request = RankRequest("r", User("42"), Candidates(items))
        return await pipeline.rank(pipeline.find("films", None), request, deadline, StageTimes(bench.clock))

    async def together() -> list[Slate]:
        return await asyncio.gather(*map(one, asked))

    for items, slate in zip(asked, asyncio.run(together()), strict=True):
        assert slate.scores.tolist() == [alone[items[at]] for at in slate.order]
    assert bench.metric("rankd_batch_requests_count", model="films") == 1
    assert bench.metric("rankd_batch_requests_sum", model="films") == 5
    assert bench.metric("rankd_batch_rows_sum", model="films") == 20


def test_a_read_that_fails_at_once_still_lets_others_be_seen_to_wait(tmp_path: Path) -> None:
    """Otherwise each request would run from beginning to end by itself, and overload would go unnoticed."""
    bench = Bench(tmp_path, price)
    bench.store.failure = StoreErrorKind.REFUSED
    order: list[str] = []

    async def one(name: str) -> None:
        order.append(f"{name} begins")
        request = RankRequest("r", User("42"), Candidates(ITEMS))
        deadline = Deadline(bench.clock, bench.clock.monotonic_s() + 1)
        await bench.pipeline.rank(
            bench.pipeline.find("films", None), request, deadline, StageTimes(bench.clock)
        )
        order.append(f"{name} ends")

    async def both() -> None:
        await asyncio.gather(one("first"), one("second"))

    asyncio.run(both())
    assert order == ["first begins", "second begins", "first ends", "second ends"]
