"""What is kept near at hand, on the request path: rows, and what was computed of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankd_contract.packing import FeatureStatus
from rankd_contract.schema import Entity
from rankd_service.domain import DegradeReason, Rung
from rankd_service.errors import StoreErrorKind
from tests.service.pipeline_bench import ITEMS, SCHEMA, Bench
from tests.support.bundles import (
    echo,
    item_rows,
    price,
)


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
