"""The request path with a store and a clock of ours: what is answered when parts of it fail or run late."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from rankd_contract.packing import FeatureStatus
from rankd_contract.schema import Entity
from rankd_contract.schema_file import parse_schema
from rankd_service.app import near_caches
from rankd_service.deadline import Deadline
from rankd_service.domain import Candidates, DegradeReason, Fields, RankRequest, Rung, Slate, Stage, User
from rankd_service.errors import DeadlineExceeded, InvalidRequest, StoreErrorKind, Unavailable, UnknownModel
from rankd_service.inference.cost import CostModel
from rankd_service.inference.loader import load_current
from rankd_service.inference.registry import ModelRegistry, Snapshot
from rankd_service.pipeline import RankPipeline
from rankd_service.settings_sources import load_settings
from rankd_service.stage_times import StageTimes
from rankd_service.telemetry import Telemetry
from tests.support.bundles import (
    SCHEMA_TEXT,
    Graph,
    echo,
    echo_version,
    item_rows,
    price,
    publish_bundle,
    user_rows,
)
from tests.support.clock import JumpingClock
from tests.support.memory_store import MemoryStore

ITEMS = [str(i) for i in range(10)]
PRICES = [0.01 * i for i in range(10)]
SCHEMA = parse_schema(SCHEMA_TEXT)


class Bench:
    """A pipeline over one model, and everything it was wired from."""

    def __init__(self, repository: Path, graph: Graph, *, near: bool = False) -> None:
        publish_bundle(repository, graph=graph)
        self.clock = JumpingClock()
        self.settings = load_settings(models={"repository": repository})
        now_s = self.clock.wall_s()
        self.rows = {**user_rows(SCHEMA, ["42"], now_s), **item_rows(SCHEMA, ITEMS, now_s, PRICES)}
        self.store = MemoryStore(self.rows)
        self.telemetry = Telemetry(CollectorRegistry())
        registry = ModelRegistry()
        self.near = near_caches(self.settings.features, self.clock) if near else None
        model = load_current(repository, "films", self.settings, self.near)
        if self.near is not None:
            self.near.trust(self.near.prefixes)
        self.telemetry.serve(model.card, model.assembler.views)
        registry.publish([model])
        self.pipeline = RankPipeline(registry, self.store, self.telemetry, self.settings, self.clock)
        self.times = StageTimes(self.clock)

    def rank(
        self,
        items: Sequence[str] = ITEMS,
        user: str = "42",
        allowed_s: float = 0.25,
        top_k: int | None = None,
        fields: Mapping[int, Fields] | None = None,
    ) -> Slate:
        request = RankRequest("r", User(user), Candidates(items, fields or {}), top_k=top_k)
        deadline = Deadline(self.clock, self.clock.monotonic_s() + allowed_s)
        model = self.pipeline.find("films", None)
        return asyncio.run(self.pipeline.rank(model, request, deadline, self.times))

    def metric(self, name: str, **labels: str) -> float:
        return self.telemetry.registry.get_sample_value(name, labels) or 0.0


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


def test_item_rows_are_read_once_and_the_users_row_every_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path, echo, near=True)
    first = bench.rank()
    assert bench.store.keys_read == len(ITEMS) + 1
    again = bench.rank()
    assert bench.store.keys_read == len(ITEMS) + 2
    assert again.scores.tolist() == first.scores.tolist()
    assert again.statuses[Entity.ITEM].tolist() == [FeatureStatus.PRESENT] * len(ITEMS)
    mixed = [*ITEMS[:3], "unknown", *ITEMS[3:]]
    slate = bench.rank(mixed)
    assert bench.store.keys_read == len(ITEMS) + 4
    assert slate.statuses[Entity.ITEM].tolist() == [
        FeatureStatus.NOT_FOUND if item == "unknown" else FeatureStatus.PRESENT for item in mixed
    ]


@pytest.mark.fault("A16")
def test_a_changed_row_is_read_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, price, near=True)
    bench.rank()
    changed = item_rows(SCHEMA, ["3"], bench.clock.wall_s(), [0.5])
    bench.store.rows |= changed
    assert bench.near is not None
    bench.near.changed([key.encode() for key in changed])
    slate = bench.rank(top_k=1)
    assert (ITEMS[slate.order[0]], slate.scores[0]) == ("3", pytest.approx(0.5, rel=1e-5))


def test_a_field_of_the_request_counts_for_it_alone_where_parts_of_scores_are_kept(tmp_path: Path) -> None:
    bench, plain = Bench(tmp_path / "near", price, near=True), Bench(tmp_path / "plain", price)
    assert bench.near is not None
    given = {3: {"price": 0.5}, 7: {"price": 0.25}}
    for fields in (None, None, given, None, given):
        slate, expected = bench.rank(fields=fields), plain.rank(fields=fields)
        assert slate.order.tolist() == expected.order.tolist()
        assert slate.scores.tolist() == expected.scores.tolist()
    assert (bench.near.parts.kept, bench.near.parts.computed) == (36, 14)


def test_rows_near_at_hand_stand_in_for_a_store_that_does_not_answer(tmp_path: Path) -> None:
    bench = Bench(tmp_path, price, near=True)
    exact = bench.rank()
    assert bench.near is not None
    bench.near.distrust()
    bench.store.failure = StoreErrorKind.REFUSED
    slate = bench.rank([*ITEMS, "unknown"])
    assert [(d.reason, d.rung, d.affected) for d in slate.degraded] == [
        (DegradeReason.STORE_DOWN, Rung.DEFAULT_ROW, 11),
        (DegradeReason.STORE_DOWN, Rung.NEAR_CACHE_ROW, 10),
    ]
    assert slate.statuses[Entity.ITEM].tolist() == [FeatureStatus.STALE_L1] * 10 + [FeatureStatus.DEFAULTED]
    known = slate.order[slate.order < len(ITEMS)]
    assert (known.tolist(), slate.scores[slate.order < len(ITEMS)].tolist()) == (
        exact.order.tolist(),
        exact.scores.tolist(),
    )
    rungs = {"model": "films", "stage": "feature_fetch", "reason": "store_down"}
    assert bench.metric("rankd_degraded_total", rung="near_cache_row", **rungs) == 1


def test_a_row_near_at_hand_ages_like_any_other(tmp_path: Path) -> None:
    bench = Bench(tmp_path, price, near=True)
    bench.rank()
    bench.clock.move_wall(31 * 86_400)
    slate = bench.rank()
    assert set(slate.statuses[Entity.ITEM].tolist()) == {FeatureStatus.OUTSIDE_MAX_AGE}


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


def slow_by(bench: Bench, fixed_s: float, row_s: float) -> None:
    """Have the pipeline believe that inference costs so much."""
    model = bench.pipeline.find("films", None)
    assert model.cost.expected_s(10) < 0.1
    object.__setattr__(model, "cost", CostModel([(0, fixed_s), (1000, fixed_s + 1000 * row_s)]))


@pytest.mark.fault("E8")
def test_what_there_is_no_time_to_score_follows_with_the_models_average(tmp_path: Path) -> None:
    bench = Bench(tmp_path, price)
    slow_by(bench, fixed_s=0.010, row_s=0.010)
    slate = bench.rank(allowed_s=0.1)
    assert 3 <= slate.scored <= 8
    assert [(d.reason, d.rung, d.affected) for d in slate.degraded] == [
        (DegradeReason.INFERENCE_LATE, Rung.FEWER_CANDIDATES, 10 - slate.scored)
    ]
    k = slate.scored
    assert slate.order.tolist() == [*range(k - 1, -1, -1), *range(k, 10)], (
        "scored ones best first, then the rest"
    )
    assert len({tuple(row) for row in slate.task_scores_KT[k:].tolist()}) == 1
    exact = Bench(tmp_path / "again", price).rank()
    by_item = dict(zip(exact.order.tolist(), exact.scores.tolist(), strict=True))
    assert slate.scores[:k].tolist() == [by_item[at] for at in slate.order[:k].tolist()]


@pytest.mark.fault("E8")
def test_a_cheaper_model_scores_where_the_one_asked_for_has_no_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path, price)
    registry, settings = ModelRegistry(), bench.settings
    films = bench.pipeline.find("films", None)
    publish_bundle(tmp_path, "small", echo_version(7))
    small = load_current(tmp_path, "small", settings)
    registry.publish([films, small], cheaper={"films": "small"})
    bench.pipeline = RankPipeline(registry, bench.store, bench.telemetry, settings, bench.clock)
    assert bench.rank().model.name == "films", "there is time"

    slow_by(bench, fixed_s=0.010, row_s=0.010)
    slate = bench.rank(allowed_s=0.1)
    assert (slate.model.name, slate.scored) == ("small", 10)
    assert slate.scores.tolist() == pytest.approx([0.07] * 10)
    assert [(d.reason, d.rung, d.affected) for d in slate.degraded] == [
        (DegradeReason.INFERENCE_LATE, Rung.CHEAPER_MODEL, 10)
    ]
    object.__setattr__(small, "cost", CostModel([(0, 1.0), (1000, 2.0)]))
    assert bench.rank(allowed_s=0.1).model.name == "films", "the other would score fewer"


def test_a_model_over_other_features_never_scores_for_another(tmp_path: Path) -> None:
    bench = Bench(tmp_path, price)
    films = bench.pipeline.find("films", None)
    publish_bundle(tmp_path, "other", echo, SCHEMA_TEXT.replace("max_length: 5", "max_length: 6"))
    other = load_current(tmp_path, "other", bench.settings)
    snapshot = Snapshot([films, other], cheaper={"films": "other", "other": "nobody"})
    assert snapshot.cheaper(films) is None
    assert snapshot.cheaper(other) is None


@pytest.mark.fault("E8")
def test_with_no_time_to_score_any_the_order_of_the_request_is_answered(tmp_path: Path) -> None:
    bench = Bench(tmp_path, price)
    slow_by(bench, fixed_s=1.0, row_s=0.0)
    slate = bench.rank(allowed_s=0.1)
    assert (slate.scored, slate.order.tolist()) == (0, list(range(10)))
    assert [(d.reason, d.rung, d.affected) for d in slate.degraded] == [
        (DegradeReason.INFERENCE_LATE, Rung.RETRIEVAL_ORDER, 10)
    ]


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
